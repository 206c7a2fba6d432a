"""Making the module that a state dict fits."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mpq.errors import ModelError, UsageError
from mpq.models.sources.checkpoint_entries import Entry
from mpq.models.sources.load import load_model
from mpq.models.sources.state_dict import (
    Reading,
    build_module,
    code_named_by_file,
    make_module,
    named,
    working_directory_importable,
)
from tests.models.sources.test_load import Net, folder, refusal

__all__ = ["folder"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_needs_a_factory_and_is_loaded_in_eval_mode(zipped: bool) -> None:
    net = Net()
    torch.save(net.state_dict(), "weights", _use_new_zipfile_serialization=zipped)
    expected = "weights holds weights without a module: add --builder package.module:callable, which builds the module"
    assert refusal("weights") == expected
    loaded = load_model("weights", factory="made_here:Net")
    assert (loaded.kind, loaded.factory, loaded.path) == ("state_dict", "made_here:Net", Path("weights"))
    assert not loaded.module.training
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.module.state_dict().items())
    assert load_model("weights", factory="made_here:Given.net").sha256 == loaded.sha256


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("made_here", "'made_here' does not name a callable: write --builder package.module:callable"),
        (
            "nets/made.py:Net",
            "'nets/made.py:Net' names a file: write its module, as Python imports it here, such as --builder nets.made:Net",
        ),
        ("made.py", "'made.py' names a file: write its module, as Python imports it here, such as --builder made:build"),
        (":Net", "':Net' does not name a callable: write --builder package.module:callable"),
        ("nowhere:Net", "--builder nowhere:Net failed with ModuleNotFoundError: No module named 'nowhere'"),
        ("made_here:Nets", "--builder made_here:Nets failed with AttributeError: module 'made_here' has no attribute 'Nets'"),
        ("made_here:fails", "--builder made_here:fails failed with ValueError: no such thing"),
        ("made_here:number", "--builder made_here:number returned int: it must return a torch.nn.Module"),
    ],
)
def test_a_factory_that_cannot_be_used_is_a_usage_error(factory: str, message: str) -> None:
    torch.save(Net().state_dict(), "w.pt")
    with pytest.raises(UsageError) as caught:
        load_model("w.pt", factory=factory)
    assert str(caught.value) == message


def test_a_missing_factory_is_told_before_the_tensors_are_read() -> None:
    save_file({"weight": torch.ones(9)}, "w.safetensors")
    expected = "w.safetensors holds weights without a module: add --builder package.module:callable, which builds the module"
    assert refusal("w.safetensors") == expected


def test_the_module_holds_the_weights_in_their_dtype_in_eval_mode() -> None:
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in Net().state_dict().items()}
    module, notes = build_module([Entry("", state)], Reading("made_here:Net"), path=Path("w.pt"))
    assert notes == ()
    assert not module.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float16}


def test_names_that_are_left_out_are_noted() -> None:
    entries = [Entry("net", {**Net().state_dict(), "aux": torch.ones(2)})]
    with pytest.raises(ModelError, match=r"^w\.pt does not fit the module of made_here:Net: unexpected: aux; "):
        build_module(entries, Reading("made_here:Net"), path=Path("w.pt"))
    _, notes = build_module(entries, Reading("made_here:Net", allow_unexpected=True), path=Path("w.pt"))
    assert notes == (
        "w.pt: weights of 'net', which alone match the module",
        "w.pt: left out 1 name that the module does not have: aux",
    )


def test_a_name_leads_through_attributes() -> None:
    assert named("torch.nn:functional.relu", option="--x") is nn.functional.relu
    with pytest.raises(UsageError, match=r"^'torch:' does not name a callable: write --x package\.module:callable$"):
        named("torch:", option="--x")


def test_modules_of_the_working_directory_come_first_unless_a_file_named_the_code() -> None:
    before = list(sys.path)
    here = str(Path.cwd())
    with working_directory_importable():
        assert sys.path == [here, *before]
    with code_named_by_file(), working_directory_importable():
        assert sys.path == [*before, here]
    assert sys.path == before


def test_a_file_of_the_working_directory_shadows_no_installed_module_where_a_file_names_it() -> None:
    sys.modules.pop("wave", None)
    Path("wave.py").write_text("raise RuntimeError('shadowed')")
    with code_named_by_file(), pytest.raises(UsageError, match=r"^--builder wave:open failed with TypeError: "):
        make_module("wave:open")
    sys.modules.pop("wave", None)
    with pytest.raises(UsageError, match=r"^--builder wave:open failed with RuntimeError: shadowed$"):
        make_module("wave:open")
    sys.modules.pop("wave", None)


def test_the_path_of_imports_is_put_back_after_an_error() -> None:
    before = list(sys.path)
    with pytest.raises(UsageError):
        make_module("nowhere:Net")
    assert sys.path == before
