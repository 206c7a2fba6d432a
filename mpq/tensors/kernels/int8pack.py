"""Matrix products on codes of 8 bits in bfloat16, by torch's int8 matmul for CPUs with AVX512 (`aten::_weight_int8pack_mm`).

It uses one scale per output, rounded to bfloat16. Larger batches are multiplied with the codes as bfloat16 numbers, which is exact, and the
products are scaled. So neither way rounds the codes.

    codes        [rows, columns]   int8: the levels
    scales       [rows]            bfloat16
    zero_points  [rows]            uint8: the bits that bfloat16 cut off the scale (`kernels/narrowed.py`)

Codes of 5 to 7 bits take 8. If the number of columns is not a multiple of 16, the operator reads beyond the end of rows (torch 2.13), which
crashes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.narrowed import narrowed, widened
from mpq.tensors.kernels.stored import row_step, weights_by_rows
from mpq.tensors.quantized import QuantizedWeight

FEW = 24  # the largest number of samples for which it is faster than converting once
_PRODUCT = torch.ops.aten._weight_int8pack_mm.default._op
_COLUMNS = 16
_WEIGHTS = 1 << 20  # weights converted at a time


def available() -> bool:
    """Whether this CPU has the fast operator."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def fits(scheme: Scheme, matrix: tuple[int, int]) -> bool:
    """Whether the operator supports a weight of shape (rows, columns)."""
    whole_rows = scheme.is_integer and scheme.symmetric and scheme.groups(matrix[1]) == 1
    return whole_rows and scheme.bits > 4 and matrix[1] % _COLUMNS == 0


def packed_of(weight: Codes) -> Codes:
    """Stored codes in the operator's layout, made piece by piece; requires `fits`."""
    rows, columns = weight.matrix
    assert weight.scales is not None
    codes = torch.empty(rows, columns, dtype=torch.int8)
    least = row_step(weight.scheme)
    step = least * max(1, _WEIGHTS // columns // least)
    for number, piece in enumerate(weights_by_rows(weight, step)):
        codes[number * step :][:step] = (piece.codes - _middle(weight.scheme)).view(torch.int8)
    return Codes("int8pack", weight.scheme, weight.matrix, codes, *narrowed(weight.scales.view(-1)), 8)


def weight_of(packed: Codes) -> QuantizedWeight:
    """The weight, by plain operations that every device supports: the inverse of `packed_of`."""
    return QuantizedWeight(
        packed.scheme, packed.matrix, packed.codes.view(torch.uint8) + _middle(packed.scheme), _scales(packed).unsqueeze(1)
    )


def few_rows(x: Tensor, packed: Codes) -> Tensor:
    """The product of x [samples, columns], bfloat16, with the transposed weight: [samples, rows]."""
    found: Tensor = _PRODUCT(x.contiguous(), packed.codes, packed.scales)
    return found


def many_rows(x: Tensor, packed: Codes) -> Tensor:
    """Like `few_rows`, also for float32, with the fp16 scales, by converting a few outputs at a time."""
    rows, columns = packed.matrix
    out, step = torch.empty(x.shape[0], rows, dtype=x.dtype), max(1, _WEIGHTS // columns)
    values = torch.empty(min(step, rows), columns, dtype=x.dtype)
    for first in range(0, rows, step):
        part = packed.codes[first : first + step]
        torch.mm(x, values[: len(part)].copy_(part).t(), out=out[:, first : first + step])
    return out.mul_(_scales(packed).to(x.dtype))


def dequantize(packed: Codes) -> Tensor:
    """The whole weight as float32 [rows, columns]; bit-identical to `QuantizedWeight.dequantize`."""
    return packed.codes.float().mul_(_scales(packed).unsqueeze(1))


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by index [count], as float32 [count, columns]; only these are dequantized."""
    return packed.codes[wanted].float().mul_(_scales(packed)[wanted].unsqueeze(1))


def _middle(scheme: Scheme) -> int:
    return int(2 ** (scheme.bits - 1))


def _scales(packed: Codes) -> Tensor:
    """The fp16 scales [rows]."""
    assert packed.scales is not None
    assert packed.zero_points is not None
    return widened(packed.scales, packed.zero_points)
