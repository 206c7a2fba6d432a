from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpq.errors import ModelError
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.records.layer import Layer
from mpq.recovery.base import State
from mpq.recovery.trainable import Trainable
from mpq.recovery.training.parametrized import RoundedWeight, TrainedWeight
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, inputs, mlp


def begun(text: str) -> tuple[nn.Module, Layer, QuantizedWeight]:
    module = mlp()
    layer = next(iter(discover(module, data().batches[:1]).layers))
    return module, layer, quantizer_named("rtn").quantize(module.get_parameter("0.weight").detach(), parse_scheme(text), None)


@pytest.mark.parametrize("text", ["int3-g8", "int4-asym", "int4-g8-s8", "ternary", "int1", "nf4-g8"])
@pytest.mark.parametrize("codes", ["none", "integers", "all"])
def test_a_step_of_adam_moves_a_weight_as_a_step_of_recover_does(text: str, codes: Any) -> None:
    module, layer, weight = begun(text)
    ours = Trainable(module, [layer], State({layer.name: weight}), codes=codes)
    owner: Any = module.get_submodule("0")
    trained = TrainedWeight(weight, layer, module.get_parameter("0.weight"), codes)
    parametrize.register_parametrization(owner, "weight", trained, unsafe=True)
    moving = [parameter for name, parameter in owner.named_parameters() if "original" in name]
    adam = torch.optim.Adam(moving, lr=2e-2, betas=(0.9, 0.99), eps=1e-12)
    for step in range(3):
        assert torch.equal(owner.weight, ours.values()[f"{layer.name}.weight"])
        gradient = inputs(16, 8, seed=step)
        adam.zero_grad()
        owner.weight.backward(gradient)
        adam.step()
        ours.step({f"{layer.name}.weight": gradient.clone()}, 20.0)
    found, expected = trained.quantized(*moving), ours.snapshot()[0][layer.name]
    assert found.scales is not None
    assert expected.scales is not None
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
    assert not torch.equal(found.dequantize(), weight.dequantize())


def test_a_gradient_is_left_as_it_was() -> None:
    module, layer, weight = begun("int3-g8")
    trained = TrainedWeight(weight, layer, module.get_parameter("0.weight"), "integers")
    gradient = inputs(16, 8)
    trained.gradients(gradient, weight)
    assert torch.equal(gradient, inputs(16, 8))


def test_a_weight_that_is_trained_cannot_be_assigned() -> None:
    module, layer, weight = begun("int3-g8")
    owner = module.get_submodule("0")
    parametrize.register_parametrization(owner, "weight", TrainedWeight(weight, layer, owner.weight, "none"), unsafe=True)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"^the weight of '0' is being trained as quantized and cannot be assigned: convert first$"):
        owner.weight = torch.zeros(16, 8)


def test_what_is_rounded_follows_to_another_device_but_not_to_another_dtype() -> None:
    module, layer, weight = begun("int3-g8")
    owner = module.get_submodule("0")
    trained = TrainedWeight(weight, layer, module.get_parameter("0.weight"), "integers")
    parametrize.register_parametrization(owner, "weight", trained, unsafe=True)
    before: Tensor = owner.weight  # type: ignore[assignment]
    owner.bfloat16()
    assert torch.equal(owner.weight, before)  # type: ignore[arg-type]
    owner.to("meta")
    assert trained._tuned.change.device.type == "meta"


def test_gradients_pass_the_rounding_to_sixteen_bits() -> None:
    module, layer, weight = begun("bf16")
    trained, parameter = RoundedWeight(weight, layer), module.get_parameter("0.weight")
    value = trained(parameter)
    assert torch.equal(value, parameter.bfloat16().float())
    value.backward(torch.full((16, 8), 2.0))
    assert parameter.grad is not None
    assert torch.equal(parameter.grad, torch.full((16, 8), 2.0))
    assert torch.equal(trained.quantized(parameter).dequantize(), value)
