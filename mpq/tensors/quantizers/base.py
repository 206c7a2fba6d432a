"""The base of all quantizers.

A quantizer is asked once per (layer, scheme), during analysis, whenever a plan is measured, and when it is applied; the
same matrix, scheme and statistics must give the same codes each time. It never sees the model: what it may know
of the layer's inputs comes in as `Statistics`, collected in one pass over the calibration data when `needs_statistics` is set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mpq.schemes import Scheme
from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight
from mpq.tensors.scales import Scales, grouped, round_to_scales


@dataclass(frozen=True)
class Statistics:
    """What the calibration inputs of one layer looked like.

    Args:
        hessian: second moment of the inputs, float32 [columns, columns], the mean over calibration positions of x x^T.
        count: number of positions it was collected over.
    """

    hessian: Tensor
    count: int


class Quantizer(ABC):
    """Chooses the codes of one weight; subclasses implement `round`."""

    name: ClassVar[str]
    needs_statistics: ClassVar[bool] = False

    def quantize(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None = None) -> QuantizedWeight:
        """Quantize a float32 matrix [rows, columns]; a floating-point scheme is a cast for every quantizer."""
        shape = (matrix.shape[0], matrix.shape[1])
        if scheme.is_float:
            return QuantizedWeight(scheme, shape, matrix.to(FLOAT_DTYPES[scheme.format]))
        return self.round(matrix, scheme, statistics)

    @abstractmethod
    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to an integer scheme."""


def nearest(matrix: Tensor, scheme: Scheme, scales: Scales) -> QuantizedWeight:
    """The weight rounded to the nearest code under given scales."""
    rows, columns = matrix.shape
    codes = round_to_scales(grouped(matrix, scheme), scales, scheme).byte().view(rows, -1)[:, :columns].contiguous()
    return assemble(codes, scheme, scales)


def assemble(codes: Tensor, scheme: Scheme, scales: Scales) -> QuantizedWeight:
    """A quantized weight from uint8 codes [rows, columns] and their scales."""
    zero_points = None if scheme.symmetric else scales.zero_point.byte()
    return QuantizedWeight(scheme, (codes.shape[0], codes.shape[1]), codes, scales.scale, zero_points)
