"""Codes in memory: a quantized weight in a layout that some kernel multiplies with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mpq.formats.scheme import Scheme


class Codes(NamedTuple):
    """A packed weight matrix.

    Args:
        layout: "bags", "int4pack" or "int8pack", each with a file of that name here; or "stored", as in an artifact.
        scheme: how the weight is quantized.
        matrix: (rows, columns): rows are outputs.
        codes: packed codes; the values themselves under a floating-point scheme.
        scales: one for each group, in the shape that the layout wants; None under a floating-point scheme.
        zero_points: beside the scales; None when symmetric. "int4pack" and "int8pack" also keep there what they cut off the scales.
        bits: bits of a code in this layout.
        simple: of "bags": whether there is only one block, without padding and zero points.
    """

    layout: str
    scheme: Scheme
    matrix: tuple[int, int]
    codes: Tensor
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    bits: int = 0
    simple: bool = False
