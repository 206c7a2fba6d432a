"""Each reported kind of damage, done to an export of each target, is named with its layer; an undamaged export passes."""

import shutil
from pathlib import Path

import pytest

from benchmarks.damages import damages
from mpq.verify.findings import Verification
from mpq.verify.worker import verified
from tests.export.artifacts import llama_export

PROGRAMS = {"onnx": "onnxruntime", "compressed-tensors": "transformers", "openvino": "openvino", "pt2": "torch"}
PACKAGES = {"onnx": "onnxruntime", "compressed-tensors": "compressed_tensors", "openvino": "openvino", "pt2": "torch"}
ALL = ("scales of other rows", "groups in another order", "nibbles swapped")
MORE = ("scales of another layer", "loaded as float", "layer missing", "tensor missing", "tied head lost")
CASES = [
    *[("onnx", name) for name in (*ALL, *MORE, "another group size")],
    *[("compressed-tensors", name) for name in (*ALL, *MORE)],
    *[("openvino", name) for name in ALL],
    *[("pt2", name) for name in ALL],
]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small language model with a tied head, exported to every target."""
    for package in PACKAGES.values():
        pytest.importorskip(package)
    return {target: llama_export(tmp_path_factory, target) for target in PACKAGES}


def found(export: Path, target: str) -> Verification:
    return verified(export, PROGRAMS[target], None, trust=False)


@pytest.mark.parametrize("target", list(PROGRAMS))
def test_an_undamaged_export_passes(exports: dict[str, Path], target: str) -> None:
    result = found(exports[target], target)
    assert result.passed, result.line
    assert result.layers == 8
    assert result.outputs[0].difference is not None
    assert result.outputs[0].difference < 1e-5


@pytest.mark.parametrize(("target", "name"), CASES)
def test_a_damage_is_named_with_its_layer(exports: dict[str, Path], tmp_path: Path, target: str, name: str) -> None:
    original = exports[target]
    shutil.copytree(original.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / original.name
    (damage,) = [each for each in damages(copy) if each.name == name]
    damage.do()
    result = found(copy, target)
    assert not result.passed
    assert [each for each in result.findings if each.name == damage.layer and each.kind in damage.kinds], result.findings
