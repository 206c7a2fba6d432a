"""Weights in the form of ExecuTorch's kernels: signed codes, positive scales."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mpq.tensors.quantized import QuantizedWeight


class Signed(NamedTuple):
    """A weight: codes * scales * signs.

    `codes` int8 [rows, columns]; `scales` float32 [rows, groups], positive; `signs` float32 [rows], each 1 or -1, or None if all are 1.
    """

    codes: Tensor
    scales: Tensor
    signs: Tensor | None


def fits_positive(weight: QuantizedWeight) -> bool:
    """Whether every group with a negative scale can be flipped together with its codes, or is a whole row."""
    if weight.scales is None or weight.scheme.bits > 4 or weight.zero_points is not None or weight.scales.shape[1] == 1:
        return True
    return weight.scheme.bits < 4 or not bool(_immovable(_grouped(signed_codes(weight), weight), weight.scales).any())


def with_positive_scales(weight: QuantizedWeight) -> Signed:
    """A symmetric weight with positive scales; only rows with a single group may get a sign."""
    assert weight.scales is not None
    codes, scales = _grouped(signed_codes(weight), weight), weight.scales.float()
    stuck = _immovable(codes, weight.scales, lowest=-(2 ** (weight.scheme.bits - 1)))
    turned = (scales < 0) & ~stuck
    codes = torch.where(turned.unsqueeze(-1), -codes, codes).flatten(1)[:, : weight.matrix[1]]
    assert scales.shape[1] == 1 or not stuck.any()
    signs = torch.where(stuck[:, 0], -1.0, 1.0) if bool(stuck.any()) else None
    return Signed(codes.to(torch.int8).contiguous(), scales.abs(), signs)


def signed_codes(weight: QuantizedWeight) -> Tensor:
    """The codes of a symmetric weight around zero, int16 [rows, columns]."""
    found: Tensor = weight.codes.short() - 2 ** (weight.scheme.bits - 1)
    return found


def _grouped(codes: Tensor, weight: QuantizedWeight) -> Tensor:
    """Codes as [rows, groups, group], with a short last group padded with zeros."""
    size = weight.scheme.group_size or weight.matrix[1]
    return torch.nn.functional.pad(codes, (0, -weight.matrix[1] % size)).view(weight.matrix[0], -1, size)


def _immovable(codes: Tensor, scales: Tensor, *, lowest: int = -8) -> Tensor:
    """The groups with a negative scale that contain the lowest code, which has no opposite: [rows, groups]."""
    found: Tensor = (scales < 0) & (codes == lowest).any(-1)
    return found
