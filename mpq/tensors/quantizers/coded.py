"""The step of a coded layer: the smallest one for which its codes fit into the bytes of its scheme.

The size falls by about one bit per weight when the step doubles. So each trial predicts the next one, and the largest step known not to fit
and the smallest known to fit bracket the solution. The quantizer gives the codes for a step: nearest codes, or codes that compensate for
each other's errors. Rows with a weight beyond 127 steps have steps 1.4, 2, 2.8, ... times as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpq.errors import NumericsError, SchemeError
from mpq.formats.base import MOST_BITS
from mpq.formats.scheme import Scheme
from mpq.tensors.coding import CLASSES, FACTORS, LARGEST_EXPONENT, Coded, encoded
from mpq.tensors.scales import LARGEST_SCALE, SMALLEST_SCALE

LARGEST_CODE = 127
Rounding = Callable[[float], Coded]
"""Gives the codes for a step."""
_GAUSSIAN = 2.05  # bits of normal weights with a step equal to their standard deviation: log2(sqrt(2 pi e))
_PER_OCTAVE = 1024  # fp16 numbers from one power of two to the next
_SLACK, _STRONG_SLACK = 0.002, 0.008  # bits per weight that may remain unused
_NEARLY_ZERO = 1.9  # times the largest weight; twice would leave only zeros
_SAMPLE = 1 << 20  # weights used to compare the settings of the encoder
_WORTH = 0.01  # share of the bytes that the strong setting must save


class _Setting(NamedTuple):
    """A setting of the encoder: classes of rows, and whether it searches thoroughly for repetitions."""

    classes: int
    strong: bool

    def bytes(self, weight: Coded) -> int:
        return len(encoded(weight, classes=self.classes, strong=self.strong))


def nearest_multiples(matrix: Tensor, step: float) -> Coded:
    """The nearest codes for a step."""
    return to_nearest(matrix, on_grid(matrix, step))


def to_nearest(matrix: Tensor, grid: Coded) -> Coded:
    """The nearest codes on a grid."""
    codes = (matrix / grid.scales.float()).round_().clamp_(-LARGEST_CODE - 1, LARGEST_CODE).to(torch.int8)
    return grid._replace(codes=codes)


def on_grid(matrix: Tensor, step: float) -> Coded:
    """The grid for a step, enlarged for rows with large weights; the codes are chosen later."""
    wanted = matrix.abs().amax(1).double() / (LARGEST_CODE * step)
    exponents = torch.bucketize(wanted, FACTORS).clamp_(max=LARGEST_EXPONENT)
    least = int(exponents.min())
    return Coded(torch.empty(matrix.shape, dtype=torch.int8), (exponents - least).byte(), _fp16(step * float(FACTORS[least])))


def smallest_steps(matrix: Tensor, scheme: Scheme, rounding: Rounding | None = None) -> Coded:
    """The codes under the smallest step for which they fit; nearest codes if no `rounding` is given.

    Raises:
        SchemeError: if even a step that leaves almost only zeros gives too many bytes; the message gives the smallest possible rate.
        NumericsError: if the weights exceed fp16.
    """
    size, largest = scheme.stored_bits((matrix.shape[0], matrix.shape[1])) // 8, float(matrix.abs().max())
    if not largest <= LARGEST_SCALE:
        raise NumericsError(f"a weight of {largest:g} needs a step that does not fit fp16 (at most 65504): keep this layer at bf16 or fp32")
    roomy = check_room(matrix, scheme)
    span = _pattern(largest / LARGEST_CODE / float(FACTORS[-1])), _coarsest(largest)
    start = min(max(_pattern(float(matrix.std(correction=0)) * 2 ** (_GAUSSIAN - scheme.rate)), span[0]), span[1])
    setting = _best_setting(matrix, start, roomy)

    def nearest(step: float) -> Coded:
        return nearest_multiples(matrix, step)

    fast = _search(nearest, span, start, size, _Setting(setting.classes, False))
    assert fast is not None  # the coarsest step fits
    if not setting.strong and rounding is None:
        return fast
    saved = setting.bytes(fast) - size if setting.strong else 0
    start = _pattern(fast.step) + _octaves(saved, matrix.numel())
    return _search(rounding or nearest, span, start, size, setting) or fast


def check_room(matrix: Tensor, scheme: Scheme) -> list[int]:
    """The numbers of classes of rows whose tables fit in the bytes that a coded scheme gives a layer.

    Raises:
        SchemeError: if there are none; with the smallest possible rate.
    """
    size = scheme.stored_bits((matrix.shape[0], matrix.shape[1])) // 8
    needed = _table_bytes(matrix)
    least = min(needed.values())
    if least > size:
        rate = least_rate(matrix)
        instead = "use int8 or 16 bits" if rate is None else f"use ec{rate:g} or more"
        raise SchemeError(f"{matrix.numel()} weights are too few for {scheme}, whose tables take {least} bytes: {instead}")
    return [classes for classes, count in needed.items() if count <= size]


def least_rate(matrix: Tensor) -> float | None:
    """The smallest rate of a coded scheme for a matrix, in bits per weight; None if its tables need more than 8 bits per weight."""
    rate = max(1.0, math.ceil(800 * min(_table_bytes(matrix).values()) / matrix.numel()) / 100)
    return rate if rate <= MOST_BITS else None


def _table_bytes(matrix: Tensor) -> dict[int, int]:
    """The bytes of a weight at the coarsest step, by number of classes of rows."""
    coarsest = nearest_multiples(matrix, _step(_coarsest(float(matrix.abs().max()))))
    return {classes: _Setting(classes, False).bytes(coarsest) for classes in CLASSES}


def _best_setting(matrix: Tensor, at: int, roomy: Sequence[int]) -> _Setting:
    """The setting with the fewest bytes near the wanted step, judged by some of the rows; with one of these numbers of classes."""
    every = max(1, matrix.numel() // _SAMPLE)
    codes = nearest_multiples(matrix[::every], _step(at))
    sizes = {classes: _Setting(classes, False).bytes(codes) for classes in roomy}
    classes = min(sizes, key=lambda each: sizes[each])
    return _Setting(classes, _Setting(classes, True).bytes(codes) < (1 - _WORTH) * sizes[classes])


def _search(rounding: Rounding, span: tuple[int, int], at: int, size: int, setting: _Setting) -> Coded | None:
    """The codes under the smallest step that fits, by its bit pattern as an fp16 number; None if not even the last of `span` fits."""
    below, above = span[0] - 1, span[1] + 1
    found: Coded | None = None
    while above - below > 1:
        if not below < at < above:
            at = span[0] if at < span[0] and below < span[0] else (below + above) // 2
        tried = rounding(_step(at))
        count = tried.codes.numel()
        excess = setting.bytes(tried) - size
        move = _octaves(excess, count)
        if excess > 0:
            below, at = at, at + max(1, move)
            continue
        found, above = tried, at
        if -8 * excess <= (_STRONG_SLACK if setting.strong else _SLACK) * count:
            break
        at += min(-1, move)
    return found


def _octaves(excess: int, count: int) -> int:
    """By how many fp16 numbers a step should grow so that `count` codes take `excess` bytes less."""
    return round(_PER_OCTAVE * 8 * excess / count)


def _coarsest(largest: float) -> int:
    """The largest useful step, at which almost all codes are zero."""
    return _pattern(min(_NEARLY_ZERO * largest, LARGEST_SCALE))


def _pattern(step: float) -> int:
    """The bit pattern, as an integer, of the smallest fp16 number that is at least `step`."""
    near = torch.tensor(max(step, SMALLEST_SCALE), dtype=torch.float16)
    return int(near.view(torch.int16)) + int(float(near) < step)


def _fp16(step: float) -> float:
    return float(torch.tensor(step, dtype=torch.float16))


def _step(pattern: int) -> float:
    return float(torch.tensor(pattern, dtype=torch.int16).view(torch.float16))
