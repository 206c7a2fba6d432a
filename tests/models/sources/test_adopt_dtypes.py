"""A module gets the floating dtypes of its checkpoint."""

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mpq.errors import ModelError
from mpq.models.sources.adopt_dtypes import adopt_dtypes
from mpq.models.sources.load import load_model
from tests.models.small import tied
from tests.models.sources.test_load import Net, folder

__all__ = ["folder"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_checkpoints_dtype_is_kept(dtype: torch.dtype) -> None:
    save_file(Net().to(dtype).state_dict(), "weights.bin")
    module = load_model("weights.bin", factory="made_here:Net").module
    assert {tensor.dtype for tensor in module.state_dict().values()} == {dtype, torch.int64}


@pytest.mark.parametrize(
    ("changed", "dtype", "note"),
    [
        (("conv.weight", torch.float8_e4m3fn), torch.float32, "1 tensor converted from float8_e4m3fn to float32"),
        (("conv.weight", torch.float64), torch.float32, "1 tensor converted from float64 to float32"),
        (("out.weight", torch.bfloat16), torch.float32, "1 tensor converted from bfloat16 to float32"),
        (("out.weight", torch.int8), torch.float32, "1 tensor converted from int8 to float32"),
        (("norm.weight", torch.float16), torch.float32, "1 tensor converted from float16 to float32"),
    ],
)
def test_one_entry_of_another_dtype_leaves_a_module_that_runs(changed: tuple[str, torch.dtype], dtype: torch.dtype, note: str) -> None:
    state = Net().state_dict()
    expected = state[changed[0]].to(changed[1])
    torch.save({**state, changed[0]: expected}, "w.pt")
    loaded = load_model("w.pt", factory="made_here:Net")
    assert set(dtypes(loaded.module).values()) == {dtype, torch.int64}
    assert torch.equal(loaded.module.state_dict()[changed[0]], expected.to(dtype))
    assert loaded.notes == (f"w.pt: {note}, in which the module runs: {changed[0]}",)
    assert loaded.module(torch.randn(2, 3, 8, 8)).dtype == dtype


def test_norms_of_torch_keep_float32_among_16_bit_weights() -> None:
    state = {name: tensor.bfloat16() if not name.startswith("norm") else tensor for name, tensor in Net().state_dict().items()}
    torch.save(state, "w.pt")
    loaded = load_model("w.pt", factory="made_here:Net")
    assert dtypes(loaded.module) == {name: tensor.dtype for name, tensor in state.items()}
    assert loaded.notes == ()
    assert loaded.module(torch.randn(2, 3, 8, 8).bfloat16()).dtype == torch.bfloat16


def test_a_module_that_was_made_in_the_dtypes_of_the_checkpoint_keeps_them() -> None:
    module = nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2), nn.Linear(2, 2).double())
    before = dtypes(module)
    assert adopt_dtypes(module.state_dict(), module) == []
    assert dtypes(module) == before
    assert len(set(before.values())) == 3


def test_a_module_keeps_its_own_fp8_float64_and_complex_tensors() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("codes", torch.ones(2, dtype=torch.float8_e4m3fn))
    module.register_buffer("times", torch.ones(2, dtype=torch.float64))
    module.register_buffer("phases", torch.full((2,), 1j))
    state = {**module.state_dict(), "weight": torch.ones(2, 2).half(), "bias": torch.ones(2).half()}
    assert adopt_dtypes(state, module) == []
    assert dtypes(module) == {name: tensor.dtype for name, tensor in state.items()}
    assert module.phases.tolist() == [1j, 1j]  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_codes_whose_scales_would_be_dropped_are_refused(dtype: torch.dtype) -> None:
    state = Net().state_dict()
    state |= {"out.weight": state["out.weight"].to(dtype), "out.weight_scale": torch.ones(1)}
    torch.save(state, "w.pt")
    with pytest.raises(ModelError) as caught:
        load_model("w.pt", factory="made_here:Net", allow_unexpected=True)
    assert str(caught.value) == (
        f"w.pt: 'out.weight' is {str(dtype).removeprefix('torch.')} with a scale, 'out.weight_scale', that the module does not have: "
        "multiply weights and scales, and save them in 16 or 32 bits"
    )


def dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in module.state_dict().items()}


def test_one_dtype_is_that_of_the_whole_module_computed_buffers_too() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("made", torch.ones(2), persistent=False)
    adopt_dtypes({"0.weight": torch.ones(2, 2).bfloat16(), "1.num_batches_tracked": torch.tensor(3)}, module)
    assert dtypes(module)["0.bias"] == module.get_buffer("made").dtype == torch.bfloat16
    assert dtypes(module)["1.num_batches_tracked"] == torch.int64


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.float8_e4m3fn, torch.float16, torch.float16),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float32),
    ],
)
def test_several_dtypes_give_the_one_that_holds_them_all(first: torch.dtype, second: torch.dtype, common: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    adopt_dtypes({"0.weight": torch.ones(2, 2).to(first), "1.weight": torch.ones(2, 2).to(second)}, module)
    assert set(dtypes(module).values()) == {common}


def test_tied_parameters_stay_tied() -> None:
    module = tied()
    adopt_dtypes({name: torch.ones(11, 8).half() for name in ("embedding.weight", "body.weight", "head.weight")}, module)
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    assert dtypes(module)["head.weight"] == torch.float16


def test_names_that_torch_converts_give_their_dtype_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2)).state_dict()
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    adopt_dtypes({name: tensor.half() for name, tensor in old.items()}, new)
    assert set(dtypes(new).values()) == {torch.float16}


def test_integers_decide_nothing() -> None:
    module = nn.Linear(2, 2)
    adopt_dtypes({"weight": torch.ones(2, 2, dtype=torch.int8), "x": "text"}, module)
    assert dtypes(module) == {"weight": torch.float32, "bias": torch.float32}
