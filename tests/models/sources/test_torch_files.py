"""Files of torch.save, torch.jit.save and safetensors."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mpq.errors import ModelError
from mpq.models.sources.load import load_model
from mpq.models.sources.loaded import LoadedModel
from mpq.models.sources.state_dict import Reading
from mpq.models.sources.torch_files import load_safetensors, load_saved, load_torchscript
from tests.models.sources.test_load import Net, folder, refusal

__all__ = ["folder"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_without_trust_and_loaded_with_it(zipped: bool) -> None:
    torch.save(Net(), "net.pt", _use_new_zipfile_serialization=zipped)
    assert refusal("net.pt") == (
        f"net.pt holds pickled Python objects ({Net.__module__}.Net), which run code when loaded: save a torch.export archive or a state "
        "dict instead, or add --trust if you trust the file; its code then runs with your rights"
    )
    loaded = load_model("net.pt", trust=True)
    assert loaded.kind == "pickle"
    assert not loaded.module.training


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_not_run(zipped: bool) -> None:
    torch.save({"weight": torch.ones(2), "x": Runs()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    Path("plain.pkl").write_bytes(pickle.dumps(Runs(), protocol=2))
    assert "--trust" in refusal("evil.pt")
    refusal("plain.pkl")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [(torch.ones(3), "a tensor"), ({"epoch": 1, "loss": 0.5}, "a dict with epoch, loss"), ({}, "an empty dict"), ([1], "a list")],
)
def test_a_file_of_torch_save_that_is_no_model_is_described(content: object, what: str) -> None:
    torch.save(content, "data.pt")
    assert refusal("data.pt") == f"data.pt holds {what} and not a model: give a state dict or a torch.export archive"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
def test_a_truncated_state_dict_is_refused(zipped: bool, share: float) -> None:
    torch.save(Net().state_dict(), "w.pt", _use_new_zipfile_serialization=zipped)
    content = Path("w.pt").read_bytes()
    Path("w.pt").write_bytes(content[: int(len(content) * share)])
    assert refusal("w.pt", factory="made_here:Net").startswith("w.pt ")


def test_safetensors_that_are_truncated_or_already_an_artifact_are_refused() -> None:
    save_file({"weight": torch.ones(9)}, "w.safetensors", metadata={"mpq": "{}"})
    expected = "w.safetensors is already an mpq artifact: run it with `mpq eval` or mpq.load, or give the original model"
    assert refusal("w.safetensors") == expected
    Path("w.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:40])
    assert refusal("w.safetensors") == "w.safetensors is a truncated .safetensors file: save or download the model again"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript_is_recognised_and_runs_in_eval_mode(traced: bool) -> None:
    net, image = Net().eval(), torch.randn(2, 3, 5, 5)
    (torch.jit.trace(net, image) if traced else torch.jit.script(net)).save("model.bin")  # type: ignore[no-untyped-call]
    loaded = load_model("model.bin")
    assert loaded.kind == "torchscript"
    assert not loaded.module.training
    assert torch.allclose(loaded.module(image), net(image))


def test_a_key_makes_another_model_of_the_same_file() -> None:
    torch.save({"a": Net().state_dict(), "b": Net().state_dict()}, "c.pt")
    models = [load_saved(Path("c.pt"), sha256="0" * 64, reading=Reading("made_here:Net", key), trust=False) for key in ("a", "b")]
    assert [model.checkpoint_key for model in models] == ["a", "b"]
    assert models[0].sha256 != models[1].sha256 != "0" * 64


def test_without_a_key_the_hash_is_that_of_the_file() -> None:
    save_file(Net().state_dict(), "w.safetensors")
    loaded = load_safetensors(Path("w.safetensors"), sha256="0" * 64, reading=Reading("made_here:Net"))
    assert (loaded.sha256, loaded.kind, loaded.factory, loaded.notes) == ("0" * 64, "state_dict", "made_here:Net", ())


def test_a_damaged_file_of_each_kind_is_one_line() -> None:
    for name in ("a", "b", "c"):
        Path(name).write_bytes(b"\x80\x02nothing")
    reasons = []
    loaders: tuple[Callable[[], LoadedModel], ...] = (
        lambda: load_saved(Path("a"), sha256="", reading=Reading(), trust=False),
        lambda: load_saved(Path("a"), sha256="", reading=Reading(), trust=True),
        lambda: load_safetensors(Path("b"), sha256="", reading=Reading()),
        lambda: load_torchscript(Path("c"), sha256="", trust=False),
    )
    for load in loaders:
        with pytest.raises(ModelError) as caught:
            load()
        reasons.append(str(caught.value))
        assert "\n" not in reasons[-1]
    kinds = (
        "a cannot be read as a file of torch.save (",
        "b cannot be read as a .safetensors file (",
        "c cannot be read as a TorchScript archive (",
    )
    assert [reason.startswith(kind) for reason, kind in zip(reasons, (kinds[0], *kinds), strict=True)] == [True] * 4
    assert all(reason.endswith("): save or download the model again") for reason in reasons)


def test_a_trusted_state_dict_needs_a_builder_as_any_other() -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "w.pt")
    assert "add --builder package.module:callable" in refusal("w.pt", trust=True)
