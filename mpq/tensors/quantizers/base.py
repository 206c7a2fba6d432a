"""The base of all quantizers.

A quantizer is called for each (layer, scheme) pair during analysis, when a plan is measured, and when it is applied. The same matrix,
scheme and statistics must always give the same codes. It never sees the model: information on the layer's inputs comes as `Statistics`,
collected in one pass over the calibration data if `needs_statistics` is set.

Without statistics, a quantizer that needs them falls back to `mse`. With statistics, the expected output error of each row is never larger
than with round-to-nearest: a row that would be worse uses the codes and scales of round-to-nearest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.coding import Coded
from mpq.tensors.hessian import output_errors
from mpq.tensors.levels import to_codes, to_exponents
from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight, coded_weight
from mpq.tensors.quantizers.coded import on_grid, smallest_steps, to_nearest
from mpq.tensors.scales import Scales, best_scales, grouped, minmax_scales, round_to_scales


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of the calibration inputs of one layer.

    Args:
        hessian: second moment of the inputs, the mean over calibration positions of x x^T, float32: [columns, columns], or [groups,
            columns, columns] if the rows are divided into consecutive groups of equal size with separate inputs. All zeros for a group
            without any input.
        count: number of positions that it was collected over.
    """

    hessian: Tensor
    count: int


def statistics_on(device: torch.device, statistics: Statistics | None) -> Statistics | None:
    """The same statistics on a device."""
    return None if statistics is None else Statistics(statistics.hessian.to(device), statistics.count)


class Quantizer(ABC):
    """Chooses the codes of one weight; subclasses implement `round`."""

    name: ClassVar[str]
    needs_statistics: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        """The name, and everything else that the codes depend on."""
        return self.name

    def remark(self, matrix: tuple[int, int]) -> str:
        """How a weight of these rows and columns is treated unlike others, as one line; empty if it is not."""
        return ""

    def quantize(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None = None) -> QuantizedWeight:
        """Quantize a float32 matrix [rows, columns]; a floating-point scheme is a cast for every quantizer."""
        shape = (matrix.shape[0], matrix.shape[1])
        if scheme.is_float:
            return QuantizedWeight(scheme, shape, matrix.to(FLOAT_DTYPES[scheme.format]))
        if scheme.is_coded:
            return self._coded(matrix, scheme, statistics)
        if not self.needs_statistics:
            return self.round(matrix, scheme, statistics)
        if statistics is None:
            return nearest(matrix, scheme, best_scales(grouped(matrix, scheme), scheme))
        rounded = nearest(matrix, scheme, minmax_scales(grouped(matrix, scheme), scheme))
        return better_rows(self.round(matrix, scheme, statistics), rounded, matrix, statistics)

    def _coded(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a coded scheme: nearest codes, or those of `round_to_grid` if their output error is smaller."""
        plain = coded_weight(smallest_steps(matrix, scheme), scheme)
        if not self.needs_statistics or statistics is None:
            return plain
        steps = smallest_steps(matrix, scheme, lambda step: self.round_to_grid(matrix, on_grid(matrix, step), statistics))
        found = coded_weight(steps, scheme)
        first, second = (output_errors(weight.dequantize() - matrix, statistics.hessian).sum() for weight in (plain, found))
        return found if bool(second < first) else plain

    def round_to_grid(self, matrix: Tensor, grid: Coded, statistics: Statistics) -> Coded:
        """Codes on a grid with fixed scales; by default the nearest ones."""
        return to_nearest(matrix, grid)

    @abstractmethod
    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a scheme of integers or levels; `statistics` are given if `needs_statistics` is set."""


def nearest(matrix: Tensor, scheme: Scheme, scales: Scales) -> QuantizedWeight:
    """The weight rounded to the nearest codes under given scales."""
    rows, columns = matrix.shape
    codes = round_to_scales(grouped(matrix, scheme), scales, scheme).view(rows, -1)[:, :columns].contiguous()
    return assemble(codes, scheme, scales)


def assemble(codes: Tensor, scheme: Scheme, scales: Scales) -> QuantizedWeight:
    """A quantized weight from float32 codes (or levels) [rows, columns] and their scales."""
    matrix = (codes.shape[0], codes.shape[1])
    if not scheme.is_integer:
        stored = to_exponents(scales.scale) if scheme.element.exponent_scales else scales.scale
        return QuantizedWeight(scheme, matrix, to_codes(codes, scheme), stored)
    zero_points = None if scheme.symmetric else scales.zero_point.byte()
    return QuantizedWeight(scheme, matrix, codes.byte(), scales.scale, zero_points)


def better_rows(first: QuantizedWeight, second: QuantizedWeight, matrix: Tensor, statistics: Statistics) -> QuantizedWeight:
    """For each row, the one of two weights with the smaller expected output error; `first` if they are equal."""
    one, other = (output_errors(weight.dequantize() - matrix, statistics.hessian) for weight in (first, second))
    worse = (other < one).unsqueeze(1)
    if not bool(worse.any()):
        return first
    parts = [
        None if a is None or b is None else torch.where(worse, b, a)
        for a, b in ((first.codes, second.codes), (first.scales, second.scales), (first.zero_points, second.zero_points))
    ]
    codes, scales, zero_points = parts
    assert codes is not None
    return QuantizedWeight(first.scheme, first.matrix, codes, scales, zero_points)
