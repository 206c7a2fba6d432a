from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.models.running.swap import hooked, swapped, tensor_of

X = torch.randn(3, 8)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model(), (X,))  # type: ignore[no-any-return,no-untyped-call]


def exported() -> nn.Module:
    return torch.export.export(model(), (X,)).module()


def unflattened() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.unflatten(torch.export.export(model(), (X,)))


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3)).bfloat16()


KINDS = [model, scripted, traced, exported, unflattened]


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in module.state_dict().items() if tensor.dim()}


@pytest.mark.parametrize("build", KINDS)
def test_the_module_computes_with_the_new_values_and_then_again_with_the_old(build: Callable[[], nn.Module]) -> None:
    module = build()
    before, reference = bits(module), module(X)
    with torch.no_grad(), swapped(module, {"2.weight": torch.zeros(3, 6)}):
        assert torch.equal(module(X), tensor_of(module, "2.bias").expand(3, 3))
    assert bits(module) == before
    assert torch.equal(module(X), reference)


@pytest.mark.parametrize("build", [*KINDS, half])
def test_every_tensor_of_the_state_dict_is_found_by_its_name_and_is_no_copy(build: Callable[[], nn.Module]) -> None:
    module = build()
    for name, tensor in module.state_dict().items():
        assert tensor_of(module, name).data_ptr() == tensor.data_ptr()


def test_values_are_restored_bit_for_bit_with_nan_and_negative_zero() -> None:
    module = half()
    strange = torch.tensor([0x7FC1, -0x8000, 0x7F81], dtype=torch.int16).view(torch.bfloat16)
    tensor_of(module, "0.weight").data[0, :3] = strange
    before = bits(module)
    with swapped(module, {"0.weight": torch.ones(6, 8, dtype=torch.bfloat16)}):
        assert bits(module) != before
    assert bits(module) == before


def test_values_are_restored_after_an_exception() -> None:
    module = model()
    before = bits(module)
    with pytest.raises(KeyboardInterrupt), swapped(module, {"0.weight": torch.zeros(6, 8)}):
        raise KeyboardInterrupt
    assert bits(module) == before


def test_storage_and_gradient_flags_stay_the_same() -> None:
    module = model()
    weight = module.get_parameter("0.weight")
    place = weight.data_ptr()
    with swapped(module, {"0.weight": torch.zeros(6, 8)}):
        assert module.get_parameter("0.weight") is weight
        assert (weight.data_ptr(), weight.requires_grad) == (place, True)


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    module[1].weight = module[0].weight
    return module


@pytest.mark.parametrize("build", [tied, lambda: torch.export.export(tied(), (X,)).module()], ids=["eager", "exported"])
@pytest.mark.parametrize("names", [["0.weight"], ["1.weight"], ["0.weight", "1.weight"]])
def test_tied_tensors_change_and_return_together(build: Callable[[], nn.Module], names: list[str]) -> None:
    module = build()
    before = bits(module)
    with swapped(module, {name: torch.ones(8, 8) for name in names}):
        assert all(torch.equal(tensor, torch.ones(8, 8)) for tensor in module.state_dict().values())
    assert bits(module) == before


def test_a_weight_that_is_not_contiguous_is_swapped_in_its_own_layout() -> None:
    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stride, old, new = module.weight.stride(), module.weight.detach().clone(), torch.randn(4, 3, 3, 3)
    with swapped(module, {"weight": new}):
        assert torch.equal(module.weight, new)
    assert torch.equal(module.weight, old)
    assert module.weight.stride() == stride


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"0.wieght": torch.zeros(6, 8)}, "the model has no tensor '0.wieght': the closest is '0.weight'"),
        ({"9.weight": torch.zeros(6, 8)}, "the model has no tensor '9.weight': the closest is '2.weight'"),
        ({"0.weight": torch.zeros(8, 6)}, "'0.weight' has shape [6, 8] in the model and [8, 6] in the new weights"),
        ({"0.weight": torch.zeros(6, 8).half()}, "'0.weight' is float32 in the model and float16 in the new weights: convert them first"),
    ],
    ids=["leaf", "module", "shape", "dtype"],
)
def test_weights_that_do_not_fit_are_refused_before_anything_changes(weights: dict[str, Tensor], message: str) -> None:
    module = model()
    before = bits(module)
    with pytest.raises(ModelError) as error, swapped(module, {"2.weight": torch.zeros(3, 6), **weights}):
        pass
    assert str(error.value) == message
    assert bits(module) == before


def test_hooks_are_removed_at_the_end_even_after_an_error() -> None:
    module, seen = model(), list[nn.Module]()
    handles = [child.register_forward_pre_hook(lambda own, _: seen.append(own)) for child in module.children()]
    with pytest.raises(RuntimeError), hooked(handles):
        module(torch.zeros(1, 7))  # refused by the first layer
    module(X)
    assert seen == [next(module.children())]


def test_a_model_without_tensors_has_none_to_offer() -> None:
    with pytest.raises(ModelError) as error:
        tensor_of(nn.ReLU(), "weight")
    assert str(error.value) == "the model has no tensor 'weight'"
