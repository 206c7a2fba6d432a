"""Codes in memory: a quantized weight in the layout of some kernel."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mpq.formats.scheme import Scheme


class Codes(NamedTuple):
    """A packed weight matrix.

    Args:
        layout: "bags", "int4pack" or "int8pack", each in the file of that name here; or "stored", as in an artifact.
        scheme: how the weight is quantized.
        matrix: (rows, columns): rows are outputs.
        codes: packed codes, or the values themselves under a floating-point scheme.
        scales: one for each group, in the shape of the layout; None under a floating-point scheme.
        zero_points: one for each scale; None if symmetric. "int4pack" and "int8pack" also store the lost bits of the scales there.
        bits: bits of a code in this layout.
        simple: for "bags": whether there is only one block, without padding and zero points.
    """

    layout: str
    scheme: Scheme
    matrix: tuple[int, int]
    codes: Tensor
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    bits: int = 0
    simple: bool = False
