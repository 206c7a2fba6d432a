import torch
from torch import nn

from mpq.export.stored.base import Place
from mpq.export.stored.pt2 import held_by
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import inputs
from tests.small import schemes

INT4, INT8 = schemes("int4-g8", "int8")
WEIGHT = quantizer_named("rtn").quantize(inputs(4, 16), INT4)


def module(**tensors: torch.Tensor) -> nn.Module:
    made = nn.Module()
    for name, tensor in tensors.items():
        made.register_buffer(name, tensor)
    return made


def test_stored_parts_are_the_weight_again_and_the_others_stay() -> None:
    parts = {f"a__{part}": tensor for part, tensor in WEIGHT.pack().items()}
    held = held_by(module(**parts, norm=torch.ones(3), steps=torch.tensor(7)), [Place("a", INT4, (4, 16))])
    assert torch.equal(held.weights["a"].dequantize(), WEIGHT.dequantize())
    assert list(held.tensors) == ["norm"]
    assert held.uses == {}


def test_a_layer_that_is_held_as_values_has_them() -> None:
    held = held_by(module(a__weight=inputs(4, 16)), [Place("a", INT4, (4, 16))])
    assert str(held.weights["a"].scheme) == "fp32"
    assert torch.equal(held.weights["a"].dequantize(), inputs(4, 16))
    assert held.tensors == {}


def test_another_number_of_scales_means_other_groups() -> None:
    wide = quantizer_named("rtn").quantize(inputs(4, 16), schemes("int4-g4")[0])
    held = held_by(module(**{f"a__{part}": tensor for part, tensor in wide.pack().items()}), [Place("a", INT4, (4, 16))])
    assert str(held.weights["a"].scheme) == "int4-g4"
    assert torch.equal(held.weights["a"].dequantize(), wide.dequantize())


def test_a_layer_that_is_not_there_is_not_held() -> None:
    assert held_by(module(norm=torch.ones(3)), [Place("a", INT8, (4, 16))]).weights == {}
