"""OpenVINO's own format, by way of ONNX."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mpq
from mpq.demo import write_demo
from mpq.export.abilities import ExportError
from mpq.export.registry import target_named
from mpq.export.run import export
from mpq.export.weights.openvino import reason
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.load import load_model
from tests.export.artifacts import kl_divergence, make
from tests.export.weights.onnx.test_target import ALL, in_turn


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """An artifact of the demo model under schemes of every kind, and a batch."""
    folder = tmp_path_factory.mktemp("digits")
    write_demo("digits", folder)
    loaded = load_model(folder / "model.pt2")
    batch = load_data(str(folder / "calibration.pt"), model=loaded, num_samples=4, batch_size=4).batches[0]
    return make(folder / "model.pt2", batch, in_turn(*ALL), folder)[1], batch.tensors[0]


def test_openvino_gives_the_logits_of_the_artifact(digits: tuple[Path, Tensor]) -> None:
    openvino = pytest.importorskip("openvino")
    artifact, inputs = digits
    done = export(artifact, "openvino", nearest=True)
    sizes = [artifact.with_name(f"model.{ending}").stat().st_size for ending in ("xml", "bin")]
    assert done.bytes == sum(sizes)
    assert f"weights are in model.bin, {sizes[1]:,} bytes: keep the two files together" in done.notes
    assert any(note.startswith("use: openvino.Core().compile_model(") for note in done.notes)
    exact = {"EXECUTION_MODE_HINT": "ACCURACY"}
    found = torch.from_numpy(openvino.Core().compile_model(done.path, "CPU", exact)(inputs.numpy())[0])
    with torch.no_grad():
        reference = mpq.load(artifact)(inputs)
    assert abs(kl_divergence(reference, found)) < 1e-8


def test_both_places_are_known_before_anything_is_written(tmp_path: Path) -> None:
    assert target_named("openvino").places(tmp_path / "m.xml") == (tmp_path / "m.xml", tmp_path / "m.bin")


def test_groups_that_do_not_divide_the_row_are_not_its_own() -> None:
    assert target_named("onnx").abilities.ragged
    assert not target_named("openvino").abilities.ragged


def test_without_openvino_its_installation_is_named(digits: tuple[Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    artifact, _ = digits
    with pytest.raises(ExportError) as caught:
        export(artifact, "openvino", tmp_path / "m.xml", nearest=True)
    assert str(caught.value) == "this target needs openvino: pip install 'mpq-torch[openvino]'"
    assert list(tmp_path.iterdir()) == []


def test_a_failed_conversion_is_told_by_its_operator() -> None:
    text = (
        "Check 'false' failed at a.cpp:151:\n-- Conv-21 with a message:\nConversion failed for Conv-21\nWhile validating node 'c':\nCheck"
    )
    assert reason(RuntimeError(text)) == "While validating node 'c'"
    assert reason(RuntimeError("no network")) == "no network"
