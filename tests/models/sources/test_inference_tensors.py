"""Modules get ordinary tensors in the place of those made under torch.inference_mode."""

import torch
from torch import nn

from mpq.models.sources.inference_tensors import ordinary, replace_inference_tensors
from tests.models.small import tied, up_and_down


def inferred() -> nn.Module:
    with torch.inference_mode():
        return up_and_down()


def test_an_ordinary_tensor_is_itself_and_another_a_copy() -> None:
    plain = torch.ones(2)
    assert ordinary(plain) is plain
    with torch.inference_mode():
        made = torch.ones(2)
        copied = ordinary(made)
    assert made.is_inference()
    assert not copied.is_inference()
    assert torch.equal(copied, plain)


def test_parameters_and_buffers_keep_their_values_flags_and_kinds() -> None:
    module, plain = inferred(), up_and_down()
    module.get_parameter("down.weight").requires_grad_(False)
    replace_inference_tensors(module)
    assert not any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers()))
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in module.state_dict().items())
    assert not module.get_parameter("down.weight").requires_grad
    assert module.get_parameter("up.weight").requires_grad
    assert isinstance(module.get_parameter("up.weight"), nn.Parameter)
    module(torch.ones(2, 2, 6, 6)).sum().backward()


def test_tied_parameters_stay_tied() -> None:
    with torch.inference_mode():
        module = tied()
    replace_inference_tensors(module)
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")


def test_ordinary_modules_and_lazy_parameters_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    before = [id(parameter) for parameter in module.parameters()]
    replace_inference_tensors(module)
    assert [id(parameter) for parameter in module.parameters()] == before
