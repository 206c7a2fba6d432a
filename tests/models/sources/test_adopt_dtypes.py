"""A module gets the floating dtypes of its checkpoint."""

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

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


def test_mixed_dtypes_are_kept_tensor_by_tensor_and_ties_stay_tied() -> None:
    state = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in Net().state_dict().items()}
    torch.save(state, "w.pt")
    loaded = load_model("w.pt", factory="made_here:Net").module.state_dict()
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {name: tensor.dtype for name, tensor in state.items()}


def dtypes(module: nn.Module) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in module.state_dict().items()}


def test_one_dtype_is_that_of_the_whole_module_computed_buffers_too() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("made", torch.ones(2), persistent=False)
    adopt_dtypes({"0.weight": torch.ones(2, 2).bfloat16(), "1.num_batches_tracked": torch.tensor(3)}, module)
    assert dtypes(module)["0.bias"] == module.get_buffer("made").dtype == torch.bfloat16
    assert dtypes(module)["1.num_batches_tracked"] == torch.int64


def test_several_dtypes_go_to_their_own_tensors_and_others_stay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    adopt_dtypes({"0.weight": torch.ones(2, 2).half(), "1.weight": torch.ones(2, 2).bfloat16()}, module)
    assert dtypes(module) == {
        "0.weight": torch.float16,
        "0.bias": torch.float32,
        "1.weight": torch.bfloat16,
        "1.bias": torch.float32,
    }


def test_tied_parameters_stay_tied() -> None:
    module = tied()
    adopt_dtypes(
        {"embedding.weight": torch.ones(11, 8).half(), "body.weight": torch.ones(8, 8), "head.weight": torch.ones(11, 8).half()}, module
    )
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    assert dtypes(module)["head.weight"] == torch.float16
    assert dtypes(module)["body.weight"] == torch.float32


def test_a_name_that_torch_converts_gives_its_dtype_to_the_nearest_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2)).state_dict()
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    adopt_dtypes({name: tensor.half() if name.startswith("0.weight_") else tensor for name, tensor in old.items()}, new)
    found = dtypes(new)
    assert found["0.parametrizations.weight.original0"] == found["0.parametrizations.weight.original1"] == torch.float16
    assert found["0.bias"] == found["1.weight"] == torch.float32


def test_two_dtypes_nearby_decide_nothing() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    adopt_dtypes({"0.weight_g": torch.ones(2).half(), "0.weight_v": torch.ones(2).bfloat16(), "0.bias": torch.ones(2)}, module)
    assert dtypes(module)["0.weight"] == torch.float32


def test_integers_decide_nothing() -> None:
    module = nn.Linear(2, 2)
    adopt_dtypes({"weight": torch.ones(2, 2, dtype=torch.int8), "x": "text"}, module)
    assert dtypes(module) == {"weight": torch.float32, "bias": torch.float32}
