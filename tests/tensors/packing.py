"""Packed tensors of small weights, and modules full of them."""

import copy

from torch import Tensor, nn

from mpq.formats.scheme import parse_scheme
from mpq.models.memory.replaced_tensors import replace_tensor
from mpq.tensors.kernels.choose import best_layout
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.matrix import to_matrix
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named


def packed(weight: Tensor, scheme: str = "int4-g32", axes: tuple[int, ...] = (0,)) -> PackedTensor:
    quantized = quantizer_named("rtn").quantize(to_matrix(weight.detach(), axes), parse_scheme(scheme))
    stored = stored_codes(quantized.pack(), quantized.scheme, quantized.matrix)
    return PackedTensor(best_layout(stored, weight.ndim, weight.dtype), weight.shape, axes, weight.dtype)


def pair(module: nn.Module, scheme: str = "int4-g32") -> tuple[nn.Module, nn.Module]:
    """The same module twice: with dequantized weights and with packed ones; ties stay."""
    dense, small = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(small.named_parameters(remove_duplicate=False)):
        if parameter.ndim > 1:
            weight = made.setdefault(id(parameter), nn.Parameter(packed(parameter, scheme), requires_grad=False))
            assert isinstance(weight, PackedTensor)
            replace_tensor(small, name, weight)
            dense.get_parameter(name).data.copy_(weight.dequantize())
    return dense, small
