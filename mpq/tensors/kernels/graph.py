"""Dequantization in a few ATen operations, for graphs that contain packed weights and run without mpq.

Eight codes of b bits fill b bytes, which are joined into one 64-bit number and split again: the same few operations for every b, so a graph
with many layers stays small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.formats.base import Format
from mpq.formats.scheme import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.packing import digits_of
from mpq.tensors.quantized import QuantizedWeight


def padded(packed: Tensor, scheme: Scheme) -> Tensor:
    """Packed codes padded to whole runs of eight; at most seven more bytes."""
    element = scheme.element
    run = 1 if element.radix or element.bits == 8 else element.bits
    return torch.nn.functional.pad(packed, (0, -packed.numel() % run))


def dequantize(packed: Codes) -> Tensor:
    """The weight of codes from `padded`, as float32 [rows, columns]."""
    scheme, (rows, columns) = packed.scheme, packed.matrix
    if packed.scales is None:
        return packed.codes.float()
    codes = _unpacked(packed.codes, scheme.element)[: rows * columns].view(rows, columns)
    zeros = packed.zero_points
    if zeros is not None:
        zeros = _unpacked(zeros, scheme.element)[: rows * scheme.groups(columns)].view(rows, -1)
    if scheme.group_size is None or columns % scheme.group_size:
        return QuantizedWeight(scheme, packed.matrix, codes, packed.scales, zeros).dequantize()
    by_group = QuantizedWeight(
        scheme.by_rows(),
        (packed.scales.numel(), scheme.group_size),
        codes.view(-1, scheme.group_size),
        packed.scales.view(-1, 1),
        None if zeros is None else zeros.view(-1, 1),
    )
    return by_group.dequantize().view(rows, columns)


def _unpacked(packed: Tensor, element: Format) -> Tensor:
    bits = element.bits
    if element.radix:
        return digits_of(packed, element).view(-1)
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        codes: Tensor = packed.unsqueeze(1) >> shifts & (2**bits - 1)
        return codes.view(-1)
    joined = (packed.view(-1, bits).long() << torch.arange(0, 8 * bits, 8)).sum(1)
    cut: Tensor = joined.unsqueeze(1) >> torch.arange(0, 8 * bits, bits) & (2**bits - 1)
    return cut.view(-1)
