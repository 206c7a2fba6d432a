"""Matrix products on codes in the artifact's form, by dequantizing a few rows at a time: for every format and device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mpq.formats.matrix import alike_rows, all_rows
from mpq.formats.scheme import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.packing import codes_at, codes_from, unpack_codes
from mpq.tensors.quantized import QuantizedWeight, scales_of, unpack_weight

_WEIGHTS = 1 << 20  # weights dequantized at a time
_STEP = 40  # rows that fill whole bytes in most formats


def stored_codes(parts: Mapping[str, Tensor], scheme: Scheme, matrix: tuple[int, int]) -> Codes:
    """The parts from `QuantizedWeight.pack` as codes; 8-bit scales become fp16, and coded weights int8."""
    if scheme.is_coded or alike_rows(matrix):
        parts, scheme, matrix = unpack_weight(parts, scheme, matrix).in_memory().pack(), scheme.in_memory, all_rows(matrix)
    if scheme.is_float:
        return Codes("stored", scheme, matrix, parts["values"])
    return Codes("stored", scheme, matrix, parts["codes"], scales_of(parts, scheme), parts.get("zero_points"))


def product(x: Tensor, packed: Codes) -> Tensor:
    """The product of x [samples, columns] with the transposed weight, [samples, rows] in the dtype of `x`, one block of rows at a time."""
    rows, columns = packed.matrix
    if rows * columns <= _WEIGHTS:
        return x @ dequantize(packed).to(x.dtype).t()
    out = torch.empty(x.shape[0], rows, dtype=x.dtype, device=x.device)
    for first, part in _blocks(packed):
        torch.mm(x, part.to(x.dtype).t(), out=out[:, first : first + len(part)])
    return out


def dequantize(packed: Codes) -> Tensor:
    """The weight as float32 [rows, columns]."""
    parts = [part for _, part in _blocks(packed)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by index [count], as float32 [count, columns]; only these are dequantized."""
    scheme, columns = packed.scheme, packed.matrix[1]
    if packed.scales is None:
        return packed.codes[wanted].float()
    places = wanted.unsqueeze(1) * columns + torch.arange(columns, device=wanted.device)
    zero_points = None
    if packed.zero_points is not None:
        groups = scheme.groups(columns)
        zero_points = codes_at(
            packed.zero_points, scheme.element, wanted.unsqueeze(1) * groups + torch.arange(groups, device=wanted.device)
        )
    codes = codes_at(packed.codes, scheme.element, places)
    return QuantizedWeight(scheme, (len(wanted), columns), codes, packed.scales[wanted], zero_points).dequantize()


def row_step(scheme: Scheme) -> int:
    """The number of rows that fill whole bytes for any number of columns."""
    return _STEP if scheme.is_float else math.lcm(_STEP, scheme.element.codes_per_run)


def weights_by_rows(packed: Codes, size: int) -> Iterator[QuantizedWeight]:
    """The weight as consecutive weights of `size` rows; `size` must be a multiple of `row_step`, or all rows."""
    scheme, (rows, columns) = packed.scheme, packed.matrix
    zero_points = None
    if packed.zero_points is not None:
        groups = scheme.groups(columns)
        zero_points = unpack_codes(packed.zero_points, scheme.element, rows * groups).view(rows, groups)
    for first in range(0, rows, size):
        count = min(size, rows - first)
        part = slice(first, first + count)
        if packed.scales is None:
            yield QuantizedWeight(scheme, (count, columns), packed.codes[part])
            continue
        codes = codes_from(packed.codes, scheme.element, first * columns, count * columns).view(count, columns)
        zeros = None if zero_points is None else zero_points[part]
        yield QuantizedWeight(scheme, (count, columns), codes, packed.scales[part], zeros)


def _blocks(packed: Codes) -> Iterator[tuple[int, Tensor]]:
    """First row and float32 values of each block."""
    step = row_step(packed.scheme)
    size = max(step, _WEIGHTS // packed.matrix[1] // step * step)
    for number, weight in enumerate(weights_by_rows(packed, size)):
        yield number * size, weight.dequantize()
