"""Matrix products on packed codes in bfloat16, by torch's int4 matmul for CPUs with AVX512 (`aten::_weight_int4pack_mm_for_cpu`).

It computes y[n] = sum over k of x[k] * ((code[n, k] - 8) * scale[n, g] + zero[n, g]) in float32, for groups g of 32 to 256 columns, from
scales and zeros that are rounded to bfloat16: an error as large as that of rounding the weight itself (`benchmarks/runtime.py` prints
both). There is no other copy of the weight; its fp16 scales are restored from here (`kernels/narrowed.py`).

    codes        [rows, columns / 2]   in the operator's packing: 64 outputs together, for every column 32 bytes with outputs i and
                                       i + 32; the outputs after the last 64 in pairs of neighbors
    scales       [groups, rows, 2]     scale and zero, bfloat16
    zero_points  [groups, rows]        uint8: zero point + 16 * the bits that bfloat16 cut off the scale

Codes of 3 bits take 4. Larger groups, or one group per row, are split into several with the same scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.narrowed import narrowed, widened
from mpq.tensors.kernels.stored import row_step, weights_by_rows
from mpq.tensors.quantized import QuantizedWeight

FEW = 48  # the largest number of samples for which it is faster than dequantizing once
_SIZES = (256, 128, 64, 32)
_BLOCK, _ROWS, _MIDDLE = 64, 16, 8
_WEIGHTS = 1 << 20  # weights dequantized at a time
_PRODUCT = torch.ops.aten._weight_int4pack_mm_for_cpu.default._op
_pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu.default


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this CPU has the fast operator and its packing is as described above, which is tested."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    codes = (torch.arange(96 * 32) * 7 // 5 % 16).view(96, 32).to(torch.uint8)
    return torch.equal(_unpacked(_pack(codes.int(), 2), 96, 32), codes)


def fits(scheme: Scheme, matrix: tuple[int, int]) -> bool:
    """Whether the operator supports a weight of shape (rows, columns)."""
    return scheme.is_integer and scheme.bits in (3, 4) and matrix[0] % _ROWS == 0 and _size(scheme, matrix[1]) is not None


def packed_of(weight: Codes) -> Codes:
    """Stored codes in the operator's layout, made piece by piece; requires `fits`."""
    (rows, columns), scheme = weight.matrix, weight.scheme
    size, shift = _size(scheme, columns), _shift(scheme)
    assert size is not None
    groups = torch.arange(0, columns, size) // (scheme.group_size or columns)
    codes = torch.empty(rows, columns // 2, dtype=torch.uint8)
    scales = torch.empty(len(groups), rows, 2, dtype=torch.bfloat16)
    zero_points = torch.empty(len(groups), rows, dtype=torch.uint8)
    least = _BLOCK * row_step(scheme)
    first, step = 0, least * max(1, _WEIGHTS // columns // least)
    for piece in weights_by_rows(weight, step):
        assert piece.scales is not None
        part = slice(first, first + len(piece.codes))
        codes[part] = _pack((piece.codes + shift).int(), 2)
        fine = piece.scales[:, groups].t()
        near, steps = narrowed(fine)
        zeros = torch.full_like(steps, _MIDDLE) if piece.zero_points is None else piece.zero_points[:, groups].t() + shift
        scales[:, part, 0], scales[:, part, 1] = near, (_MIDDLE - zeros.float()) * fine.float()
        zero_points[:, part] = zeros | steps << 4
        first = part.stop
    return Codes("int4pack", scheme, weight.matrix, codes, scales, zero_points, 4)


def weight_of(packed: Codes) -> QuantizedWeight:
    """The weight, by plain operations that every device supports: the inverse of `packed_of`."""
    (rows, columns), scheme = packed.matrix, packed.scheme
    near, rest = _groups(packed)
    own = slice(None, None, max(1, (scheme.group_size or columns) // (columns // len(rest))))  # one of the groups with the same scale
    scales, zeros = widened(near[own], rest[own] >> 4).t(), (rest[own] & 15).t() - _shift(scheme)
    return QuantizedWeight(
        scheme, packed.matrix, _unpacked(packed.codes, rows, columns) - _shift(scheme), scales, None if scheme.symmetric else zeros
    )


def few_rows(x: Tensor, packed: Codes) -> Tensor:
    """The product of x [samples, columns], bfloat16, with the transposed weight: [samples, rows]."""
    assert packed.scales is not None
    size = packed.matrix[1] // packed.scales.shape[0]
    found: Tensor = _PRODUCT(x.contiguous(), packed.codes, size, packed.scales)
    return found


def many_rows(x: Tensor, packed: Codes) -> Tensor:
    """Like `few_rows` for any dtype, by dequantizing a few outputs at a time."""
    (rows, columns), dtype = packed.matrix, x.dtype
    out, values = torch.empty(x.shape[0], rows, dtype=dtype), torch.empty(0)
    rounded = torch.empty(0, dtype=dtype)
    for first, last in _pieces(packed):
        if values.shape != (columns, last - first):
            values = torch.empty(columns, last - first)
            rounded = values if dtype == torch.float32 else torch.empty_like(values, dtype=dtype)
        _put(values, packed, first, last)
        torch.mm(x, rounded if rounded is values else rounded.copy_(values), out=out[:, first:last])
    return out


def dequantize(packed: Codes) -> Tensor:
    """The whole weight as float32 [rows, columns]; bit-identical to `QuantizedWeight.dequantize`."""
    rows, columns = packed.matrix
    found = torch.empty(columns, rows)
    for first, last in _pieces(packed):
        _put(found[:, first:last], packed, first, last)
    return found.t()


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by index [count], as float32 [count, columns]; only these are dequantized."""
    rows, columns = packed.matrix
    whole = rows // _BLOCK * _BLOCK
    number, place, rest = wanted // _BLOCK, wanted % _BLOCK, rows - whole
    in_whole, half = wanted < whole, _BLOCK // 2
    byte = torch.where(in_whole, number * columns * half + place % half, whole * columns // 2 + place // 2)
    step, nibble = torch.where(in_whole, half, rest // 2), torch.where(in_whole, place // half, place % 2)
    bytes_ = packed.codes.view(-1)[byte.unsqueeze(1) + step.unsqueeze(1) * torch.arange(columns, device=wanted.device)]
    codes = (bytes_ >> (4 * nibble).to(torch.uint8).unsqueeze(1) & 15).view(-1, columns)
    near, left = _groups(packed)
    scales, zeros = widened(near[:, wanted], left[:, wanted] >> 4), left[:, wanted] & 15
    values = codes.view(len(wanted), len(left), -1).float().sub_(zeros.t().unsqueeze(2)).mul_(scales.t().unsqueeze(2))
    return values.view(len(wanted), columns)


def _pieces(packed: Codes) -> Iterator[tuple[int, int]]:
    """First row and end of each piece; the rows after the last 64 are a separate piece."""
    rows, columns = packed.matrix
    whole, step = rows // _BLOCK * _BLOCK, max(1, _WEIGHTS // columns // _BLOCK) * _BLOCK
    for first in range(0, whole, step):
        yield first, min(first + step, whole)
    if whole < rows:
        yield whole, rows


def _put(values: Tensor, packed: Codes, first: int, last: int) -> None:
    """Write the outputs `first` to `last` (one piece) to `values`, float32 [columns, outputs]."""
    columns, count = packed.matrix[1], last - first
    body = packed.codes.view(-1)[first * columns // 2 : last * columns // 2]
    if count % _BLOCK == 0:
        halves = body.view(-1, columns, _BLOCK // 2)
        codes = torch.stack((halves & 15, halves >> 4), 1).permute(2, 0, 1, 3)
        wide = torch.unflatten(values, 1, codes.shape[1:])
    else:
        pairs = body.view(columns, -1)
        codes, wide = torch.stack((pairs & 15, pairs >> 4), -1).view(columns, -1), values
    wide.copy_(codes.sub_(_MIDDLE).view(torch.int8))
    near, rest = (part[:, first:last] for part in _groups(packed))
    grouped = torch.unflatten(values, 0, (len(near), -1))
    if not packed.scheme.symmetric:
        grouped.sub_((rest & 15).float().sub_(_MIDDLE).unsqueeze(1))
    grouped.mul_(widened(near, rest >> 4).float().unsqueeze(1))


def _unpacked(codes: Tensor, rows: int, columns: int) -> Tensor:
    """The operator's codes [rows, columns] from its packed bytes."""
    whole = rows // _BLOCK * _BLOCK
    halves = codes.view(-1)[: whole * columns // 2].view(-1, columns, _BLOCK // 2)
    pairs = codes.view(-1)[whole * columns // 2 :].view(columns, -1)
    first = torch.stack((halves & 15, halves >> 4), 1).transpose(2, 3).reshape(whole, columns)
    return torch.cat((first, torch.stack((pairs & 15, pairs >> 4), -1).view(columns, -1).t()))


def _groups(packed: Codes) -> tuple[Tensor, Tensor]:
    """Rounded scales, and zero points with the lost bits, both [groups, rows]."""
    assert packed.scales is not None
    assert packed.zero_points is not None
    return packed.scales[..., 0], packed.zero_points


def _size(scheme: Scheme, columns: int) -> int | None:
    """Columns per group of the operator: the largest size that divides the row and its groups."""
    own = scheme.group_size or columns
    return next((size for size in _SIZES if columns % size == 0 and own % size == 0), None)


def _shift(scheme: Scheme) -> int:
    """The offset for codes of less than 4 bits, so that their middle is the operator's."""
    return _MIDDLE - int(2 ** (scheme.bits - 1))
