"""Other tensors in the place of a module's own, and modules that wait for theirs."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from mpq.errors import ModelError
from mpq.models.memory.replaced_tensors import fill_hollow, hollow_parameters, replace_tensor
from tests.models.small import tied, up_and_down


def test_a_parameter_is_replaced_and_takes_no_gradients() -> None:
    module, value = nn.Sequential(nn.Linear(2, 3)), torch.ones(3, 2)
    replace_tensor(module, "0.weight", value)
    assert torch.equal(module.get_parameter("0.weight"), value)
    assert isinstance(module[0].weight, nn.Parameter)
    assert not module[0].weight.requires_grad
    assert list(module.state_dict()) == ["0.weight", "0.bias"]


def test_a_parameter_that_is_given_is_put_in_as_it_is() -> None:
    module, value = nn.Linear(2, 3), nn.Parameter(torch.ones(3, 2))
    replace_tensor(module, "weight", value)
    assert module.weight is value


def test_a_buffer_stays_a_buffer() -> None:
    module = up_and_down()
    replace_tensor(module, "norm.running_mean", torch.ones(4))
    replace_tensor(module, "steps", torch.tensor([7]))
    assert dict(module.named_buffers())["norm.running_mean"].tolist() == [1] * 4
    assert module.get_buffer("steps").tolist() == [7]


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.script(nn.Linear(2, 3))
    with pytest.raises(ModelError) as error:
        replace_tensor(module, "weight", torch.ones(3, 2))
    assert str(error.value) == "a TorchScript module holds plain tensors only: load the artifact with packed=False and without dtype"


def test_modules_are_made_without_memory_for_their_parameters() -> None:
    with hollow_parameters():
        module = up_and_down()
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in up_and_down().state_dict().items()
    }
    assert not nn.Linear(2, 2).weight.is_meta


def test_ties_stay_through_hollow_and_filled() -> None:
    with hollow_parameters():
        module = tied()
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    fill_hollow(module)
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    assert not module.get_parameter("head.weight").is_meta
    assert not module.get_parameter("head.weight").any()


def test_filling_keeps_dtype_flags_and_what_has_memory() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    module[0].weight = nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16, device="meta"), requires_grad=False)
    kept = module.get_parameter("1.weight").clone()
    fill_hollow(module)
    assert (module[0].weight.dtype, module[0].weight.requires_grad) == (torch.bfloat16, False)
    assert torch.equal(module.get_parameter("1.weight"), kept)


def test_a_module_of_more_parameters_than_allowed_is_stopped_while_it_is_made() -> None:
    with hollow_parameters(most=8):
        nn.Linear(2, 2)
    with pytest.raises(ModelError) as error, hollow_parameters(most=8):
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert str(error.value) == "its configuration makes more than 8 parameters, which the file does not have"
    assert not nn.Linear(2, 2).weight.is_meta


def test_a_tied_parameter_counts_once() -> None:
    with hollow_parameters(most=12):
        one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        for _ in range(3):
            other.weight = one.weight
    assert other.weight is one.weight


def test_a_parameter_that_is_none_is_none() -> None:
    with hollow_parameters():
        assert nn.Linear(2, 2, bias=False).bias is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(1 << 14, 1 << 14),
        lambda: torch.ones((1 << 14, 1 << 14)),
        lambda: torch.empty(1 << 20, 1 << 20),
        lambda: torch.zeros(size=(1 << 40,)),
        lambda: torch.full([1 << 30], 1.0),
        lambda: torch.arange(1 << 40),
        lambda: torch.arange(0, 1 << 42, 2),
    ],
)
def test_a_tensor_larger_than_the_file_can_fill_is_refused_before_it_takes_memory(make: Any) -> None:
    with pytest.raises(ModelError, match="more than 1,000 parameters"), hollow_parameters(most=1000):
        make()


def test_parameters_that_are_kept_are_counted_while_they_have_no_memory() -> None:
    with hollow_parameters(most=10, keep=True):
        module = nn.Linear(8, 8)
    assert not module.weight.is_meta
    with pytest.raises(ModelError, match="more than 10 parameters"), torch.device("meta"), hollow_parameters(most=10, keep=True):
        nn.Linear(8, 8)
