"""HQQ: nearest codes under scales that make the weights' error sparse: many small errors, and a few large ones at outliers.

Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": minimize the sum of |w - (code - zero) * scale|^p with
p < 1 by half-quadratic splitting. With e an auxiliary copy of the error r, e is set to the generalized shrinkage of the error (Chartrand
2012), sign(r) * max(0, |r| - |r|^(p - 1) / beta), then the scale is fitted to the weights minus e by least squares, and beta grows. The
paper optimizes a floating-point zero point and fixes the scale. Here the scale is optimized, because a symmetric scheme has no zero point
and that of an asymmetric one is an integer. Errors are in units of the covering scale's step, so that beta means the same for every layer.
For each group, the iterate with the smallest sum is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics, nearest
from mpq.tensors.scales import Scales, best_scales, fitted_scales, grouped, minmax_scales, round_to_scales, settled

_POWER = 0.7
_BETA = 1.0
_GROWTH = 1.05
_ITERATIONS = 20


class HalfQuadratic(Quantizer):
    """Nearest codes under the scales with the sparsest weight error; needs no data."""

    name = "hqq"

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a scheme of integers or levels."""
        return nearest(matrix, scheme, sparse_scales(grouped(matrix, scheme), scheme))


def sparse_scales(groups: Tensor, scheme: Scheme) -> Scales:
    """The scales of weights in groups, float32 [rows, groups, group], with the smallest sum of |error|^p that the iteration finds."""
    unit = minmax_scales(groups, scheme).scale.float().abs().unsqueeze(-1)
    found = best = best_scales(groups, scheme)
    least, beta = _loss(_error(groups, best, scheme), unit), _BETA
    for _ in range(_ITERATIONS):
        error = _error(groups, found, scheme)
        found = fitted_scales(groups, groups - _shrunk(error / unit, beta).mul_(unit), found, scheme)
        loss = _loss(_error(groups, found, scheme), unit)
        better = loss < least
        best = Scales(torch.where(better, found.scale, best.scale), torch.where(better, found.zero_point, best.zero_point))
        least, beta = torch.where(better, loss, least), beta * _GROWTH
    return settled(best, scheme)


def _error(groups: Tensor, scales: Scales, scheme: Scheme) -> Tensor:
    steps = round_to_scales(groups, scales, scheme).sub_(scales.zero_point.unsqueeze(-1))
    return groups - steps.mul_(scales.scale.float().unsqueeze(-1))


def _loss(error: Tensor, unit: Tensor) -> Tensor:
    return (error / unit).abs_().pow_(_POWER).sum(-1)


def _shrunk(error: Tensor, beta: float) -> Tensor:
    magnitude = error.abs()
    return (magnitude - magnitude.clamp(min=1e-8).pow(_POWER - 1).div_(beta)).clamp_(min=0).mul_(error.sign())
