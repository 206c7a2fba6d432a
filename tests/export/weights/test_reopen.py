from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpq.apply.run import apply
from mpq.data.dataset import Batch
from mpq.errors import ModelError, TrustError
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source, open_source
from mpq.export.weights.reopen import original_path, quantized_module, sample
from tests.apply.making import expected_state, exported, in_memory, plan_of, same
from tests.models.small import inputs, mlp

NAMED = "tests.models.small:mlp"


def source(folder: Path) -> Source:
    """An artifact of a program."""
    model = exported("mlp", folder)
    apply(model, plan_of(model, "mlp"), folder / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    return open_source(folder / "m.mpq.safetensors")


def weights_only(folder: Path) -> Source:
    """An artifact of a state dict, which is beside it."""
    model = in_memory("mlp")
    torch.save(mlp().state_dict(), folder / "w.pt")
    wanted = plan_of(model, "mlp")
    apply(model, wanted, folder / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    return replace(open_source(folder / "m.mpq.safetensors"), model={"kind": "state_dict", "path": "w.pt", "factory": NAMED})


def test_the_original_is_as_given_or_beside_the_source_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    found = Source(Path("runs/plan.yaml"), {"path": "m.pt"}, {}, {}, 0)
    assert original_path(found, Options()) is None
    Path("m.pt").touch()
    assert original_path(found, Options()) == Path("m.pt")
    Path("runs/m.pt").touch()
    assert original_path(found, Options()) == Path("runs/m.pt")
    assert original_path(found, Options(model=Path("given.pt"))) == Path("given.pt")
    assert original_path(replace(found, model={}), Options()) is None


def test_a_program_runs_with_its_quantized_weights_and_without_the_original(tmp_path: Path) -> None:
    wanted = plan_of(in_memory("mlp"), "mlp")
    given = source(tmp_path)
    (tmp_path / "model.pt2").unlink()
    module = quantized_module(given, Options())
    assert same(module, expected_state(in_memory("mlp"), wanted, "mlp"))


def test_weights_alone_need_the_original_and_what_makes_its_module(tmp_path: Path) -> None:
    given = weights_only(tmp_path)
    expected = expected_state(in_memory("mlp"), plan_of(in_memory("mlp"), "mlp"), "mlp")
    assert same(quantized_module(given, Options(factory=NAMED)), expected)
    with pytest.raises(TrustError):
        quantized_module(given, Options())
    (tmp_path / "w.pt").unlink()
    with pytest.raises(ExportError) as error:
        quantized_module(given, Options(factory=NAMED))
    assert str(error.value) == f"{given.path} holds weights only, and its model w.pt was not found: name it with --reference"
    with pytest.raises(ModelError):
        quantized_module(given, Options(factory=NAMED, model=tmp_path / "none.pt"))


def test_two_samples_of_the_data_are_enough(tmp_path: Path) -> None:
    torch.save(inputs(5, 8), tmp_path / "data.pt")
    given = Source(tmp_path / "m", {"kind": "state_dict", "sha256": "a"}, {}, {}, 0)
    found = sample(mlp(), given, Options(data=str(tmp_path / "data.pt")))
    assert isinstance(found, Batch)
    assert torch.equal(found.args[0], inputs(5, 8)[:2])
    with pytest.raises(ExportError, match=r"^a state_dict model has no example inputs to trace it with: add --data FILE; two samples are "):
        sample(mlp(), given, Options())
