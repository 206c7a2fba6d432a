"""Matrix products on packed codes in float32, by torch's quantized embedding bags on the CPU.

An embedding bag sums rows of a table, each multiplied by a weight. If each row of the table is one column of the matrix, and the weights
are the input, then the sum over the columns of one group is a bag, computed directly from codes of 2, 4 or 8 bits with float32 activations
and accumulators:

    y[n] = sum over groups g of  scale[n, g] * (sum over k in g of  x[k] * (code[n, k] - zero[n, g]))

So nothing is rounded: the result differs from dequantize-and-multiply only by the order of summation. torch's packed matmuls for float32
activations are many times slower, and the fast ones compute in bfloat16 (`benchmarks/log.md` has the numbers).

    codes        [blocks * columns, bytes]   the codes of `block` outputs, then the row's scale and bias in the operator's form
    scales       [blocks, groups, block]     fp16
    zero_points  [blocks, groups, block]     uint8, or absent

Codes of 3 bits take 4, those of 5 to 7 bits take 8.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import repeat

import torch
from torch import Tensor

from mpq.formats.packed_layout import table_layout
from mpq.formats.scheme import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.stored import row_step, weights_by_rows
from mpq.tensors.quantized import QuantizedWeight

_NAMES = {2: "2bit", 4: "4bit", 8: "byte"}
_PRODUCTS, _UNPACKERS = (
    {bits: getattr(torch.ops.quantized, f"embedding_bag_{name}_{what}").default._op for bits, name in _NAMES.items()}
    for what in ("rowwise_offsets", "unpack")
)
_SUMS = 1 << 21  # sums of groups, before they are scaled and added


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this build of torch has the fast operators: its FBGEMM backend, on a CPU with AVX2."""
    return "fbgemm" in torch.backends.quantized.supported_engines and "AVX" in torch.backends.cpu.get_cpu_capability()


def fits(scheme: Scheme) -> bool:
    """Whether codes of this scheme are a linear function of their levels, as the table requires."""
    return scheme.element.linear is not None


def packed_of(weight: Codes) -> Codes:
    """The table of stored codes, made block by block; their scheme must satisfy `fits`."""
    (rows, columns), (bits, block, line) = weight.matrix, table_layout(weight.scheme, weight.matrix)
    blocks, groups, end = -(-rows // block), weight.scheme.groups(columns), block * bits // 8
    table = torch.zeros(blocks, columns, line, dtype=torch.uint8)
    table[..., end:] = torch.tensor(_line(weight.scheme), dtype=torch.float32 if bits == 8 else torch.float16).view(torch.uint8)
    scales = torch.zeros(blocks, groups, block, dtype=torch.float16)
    zero_points = None if weight.zero_points is None else torch.zeros(blocks, groups, block, dtype=torch.uint8)
    number = 0
    for rows_of_blocks in weights_by_rows(weight, math.lcm(block, row_step(weight.scheme)) if block < rows else rows):
        per_row = (rows_of_blocks.codes, rows_of_blocks.scales, rows_of_blocks.zero_points)
        for codes, scale, zeros in zip(*(repeat(None) if part is None else torch.split(part, block) for part in per_row), strict=False):
            _put(table[number, :, :end], codes, bits)
            scales[number, :, : len(codes)] = scale.t()
            if zero_points is not None:
                zero_points[number, :, : len(codes)] = zeros.t()
            number += 1
    simple = zero_points is None and block == rows
    return Codes("bags", weight.scheme, weight.matrix, table.view(blocks * columns, -1), scales, zero_points, bits, simple)


def weight_of(bags: Codes) -> QuantizedWeight:
    """The weight of a table, by plain operations that every device supports: the inverse of `packed_of`."""
    (rows, columns), bits = bags.matrix, bags.bits
    blocks, groups, block = _scales(bags).shape
    body = bags.codes.view(blocks, columns, -1)[..., : block * bits // 8]
    places = [(body >> (place * bits)) & (2**bits - 1) for place in range(8 // bits)]
    codes = torch.stack(places, -1).reshape(blocks, columns, block).transpose(1, 2).reshape(blocks * block, columns)[:rows]
    scales, zero_points = (
        None if part is None else part.transpose(1, 2).reshape(blocks * block, groups)[:rows] for part in (_scales(bags), bags.zero_points)
    )
    return QuantizedWeight(bags.scheme, bags.matrix, codes, scales, zero_points)


def few_rows(x: Tensor, bags: Codes) -> Tensor:
    """The product of x [samples, columns], contiguous, with the transposed weight, float32 [samples, rows].

    One bag for each block of outputs, sample and group, in this order: a block stays in the cache for all samples.
    """
    rows, columns = bags.matrix
    samples, scales = len(x), _scales(bags)
    if samples == 1 and bags.simple:  # a decoding step: as few calls as possible
        indices, offsets = _indices(1, 1, columns, bags.scheme.group_size or columns)
        found: Tensor = _PRODUCTS[bags.bits](bags.codes, indices, offsets, False, 0, False, x.reshape(-1), None, True)
        return found.mul_(scales[0]).sum(0, keepdim=True)
    blocks, groups, block = scales.shape
    at_once = max(1, _SUMS // (rows * groups))
    if samples > at_once:
        return torch.cat([few_rows(part, bags) for part in torch.split(x, at_once)])
    indices, offsets = _indices(samples, blocks, columns, bags.scheme.group_size or columns)
    weights = (x if blocks == 1 else x.unsqueeze(0).expand(blocks, samples, columns)).reshape(-1)
    sums: Tensor = _PRODUCTS[bags.bits](bags.codes, indices, offsets, False, 0, False, weights, None, True)
    sums = sums.view(blocks, samples, groups, block)
    if bags.zero_points is not None:
        sums = sums - _group_sums(x, bags).view(1, samples, groups, 1) * _shift(bags).unsqueeze(1)
    sums.mul_(scales.unsqueeze(1))
    found = (sums.squeeze(2) if groups == 1 else sums.sum(2)).transpose(0, 1).reshape(samples, -1)
    return found if blocks * block == rows else found[:, :rows]


def many_rows(x: Tensor, bags: Codes) -> Tensor:
    """Like `few_rows`, but dequantizes one block of outputs after another; only one block is ever in float."""
    rows, _ = bags.matrix
    blocks, _, block = _scales(bags).shape
    if blocks == 1:
        return x @ dequantized_block(bags, 0)[:, :rows].to(x.dtype)
    out = torch.empty(x.shape[0], rows, dtype=x.dtype)
    for number in range(blocks):
        first = number * block
        part = dequantized_block(bags, number)[:, : rows - first].to(x.dtype)
        torch.mm(x, part, out=out[:, first : first + part.shape[1]])
    return out


def dequantize(bags: Codes) -> Tensor:
    """The whole weight as float32 [rows, columns]; bit-identical to `QuantizedWeight.dequantize`."""
    blocks = _scales(bags).shape[0]
    parts = [dequantized_block(bags, number) for number in range(blocks)]
    return (parts[0] if blocks == 1 else torch.cat(parts, 1))[:, : bags.matrix[0]].t()


def dequantized_block(bags: Codes, number: int) -> Tensor:
    """Block `number` of the transposed weight as float32 [columns, block]."""
    columns = bags.matrix[1]
    values: Tensor = _UNPACKERS[bags.bits](bags.codes[number * columns : (number + 1) * columns])
    scales = _scales(bags)[number]
    shift = None if bags.zero_points is None else _shift(bags)[number]
    if scales.shape[0] == 1:
        return (values if shift is None else values.sub_(shift)).mul_(scales)
    size = bags.scheme.group_size
    assert size is not None
    whole = columns // size
    parts = [(values[: whole * size].view(whole, size, -1), slice(0, whole)), (values[whole * size :].unsqueeze(0), slice(whole, None))]
    for part, groups in parts:
        if part.numel():
            if shift is not None:
                part.sub_(shift[groups].unsqueeze(1))
            part.mul_(scales[groups].unsqueeze(1))
    return values


def rows_of(bags: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by index [count], as float32 [count, columns]; only these are dequantized."""
    (_, columns), bits, block = bags.matrix, bags.bits, _scales(bags).shape[2]
    number, place = wanted // block, wanted % block
    table = bags.codes.view(-1, columns, bags.codes.shape[1])
    codes = table[number, :, place * bits // 8] >> (place * bits % 8).to(torch.uint8).unsqueeze(1) & (2**bits - 1)
    zero_points = None if bags.zero_points is None else bags.zero_points[number, :, place]
    return QuantizedWeight(bags.scheme, (len(wanted), columns), codes, _scales(bags)[number, :, place], zero_points).dequantize()


def _scales(bags: Codes) -> Tensor:
    assert bags.scales is not None
    return bags.scales


def _line(scheme: Scheme) -> tuple[float, float]:
    """Slope and offset of the operator: level = slope * code + offset; the zero point of a group is added."""
    assert scheme.element.linear is not None
    return scheme.element.linear


def _put(lines: Tensor, codes: Tensor, bits: int) -> None:
    """Write codes [outputs, columns] to the lines [columns, bytes] of their block."""
    columnwise, per_byte = codes.t(), 8 // bits
    for place in range(per_byte):
        some = columnwise[:, place::per_byte]
        lines[:, : some.shape[1]] |= some << (place * bits)


def _shift(bags: Codes) -> Tensor:
    """The offset to subtract from the levels: zero points count from 0, the operator's levels from the middle."""
    assert bags.zero_points is not None
    return bags.zero_points.float().sub_(2 ** (bags.scheme.bits - 1))


def _group_sums(x: Tensor, bags: Codes) -> Tensor:
    columns = bags.matrix[1]
    size = bags.scheme.group_size or columns
    return torch.nn.functional.pad(x, (0, -columns % size)).view(x.shape[0], -1, size).sum(-1)


@lru_cache(maxsize=256)
def _indices(samples: int, blocks: int, columns: int, size: int) -> tuple[Tensor, Tensor]:
    """Table rows of every block in order, repeated for each sample, and the start of each bag."""
    starts = torch.cat([torch.arange(0, columns, size) + part * columns for part in range(samples * blocks)])
    offsets = torch.cat([starts, torch.tensor([samples * blocks * columns])])
    lines = torch.arange(blocks * columns, dtype=torch.int32).view(blocks, 1, columns)
    return lines.expand(blocks, samples, columns).reshape(-1), offsets.int()
