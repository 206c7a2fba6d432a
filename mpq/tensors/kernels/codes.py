"""Codes in memory: a quantized weight in a layout that some kernel multiplies with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mpq.schemes import Scheme


class Codes(NamedTuple):
    """A packed weight matrix.

    Args:
        layout: "bags" (`kernels/bags.py`) or "stored", as in an artifact (`kernels/stored.py`).
        scheme: how the weight is quantized.
        matrix: (rows, columns): rows are outputs.
        codes: packed codes; the values themselves under a floating-point scheme.
        scales: one for each group, in the shape that the layout wants; None under a floating-point scheme.
        zero_points: beside the scales; None when symmetric.
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
