"""Scale search: finds the scale (and zero point) of each group with the smallest rounding error.

`best_scales` tries the clipping ratios of the format, both signs of a symmetric scale (the code range -2**(b-1)..2**(b-1)-1 has
one more value on one side; a negative scale puts it where the weights need it, at no cost in bytes). Then it refits: given the codes, the
scale that minimizes the weighted squared error is <w, q> / <q, q>. Every trial uses the fp16-rounded scale that
will be stored. Grid search over clipping: compare OCTAV (Sakr et al. 2022) and AWQ (Lin et al. 2023); alternating refit: Lloyd's algorithm.
    Formats with a table of levels are handled in the same way: here, their "codes" are levels and their zero points 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.formats.scheme import Scheme
from mpq.tensors.levels import levels_of, nearest_level, power_of_two
from mpq.tensors.small_scales import nearest_small, row_exponents

SMALLEST_SCALE = 2.0**-24  # the smallest positive fp16 number
LARGEST_SCALE = 65504.0
_REFITS = 2
_CHUNK = 1 << 17  # weights processed at a time, small enough for the cache


class Scales(NamedTuple):
    """Per group: `scale` [rows, groups], fp16 or float32 powers of two depending on the format, and the zero point as float32 integers.

    The zero point is the middle code of symmetric integers, 0 for levels.
    """

    scale: Tensor
    zero_point: Tensor


def grouped(matrix: Tensor, scheme: Scheme) -> Tensor:
    """The matrix as [rows, groups, group]; a shorter last group is filled with zeros."""
    rows, columns = matrix.shape
    groups = scheme.groups(columns)
    size = columns if scheme.group_size is None else scheme.group_size
    if groups * size != columns:
        matrix = torch.nn.functional.pad(matrix, (0, groups * size - columns))
    return matrix.view(rows, groups, size)


def round_to_scales(groups: Tensor, scales: Scales, scheme: Scheme) -> Tensor:
    """The nearest codes, as float32 [rows, groups, group], for weights in groups."""
    return nearest_codes(groups / scales.scale.float().unsqueeze(-1), scales.zero_point.unsqueeze(-1), scheme)


def nearest_codes(steps: Tensor, zero_point: Tensor, scheme: Scheme) -> Tensor:
    """The nearest codes, as float32, for weights in units of their scale; `steps` may be overwritten."""
    if not scheme.is_integer:
        return nearest_level(steps, scheme)
    return steps.round_().add_(zero_point).clamp_(0, 2**scheme.bits - 1)


def minmax_scales(groups: Tensor, scheme: Scheme) -> Scales:
    """Scales that cover the range of each group: absmax / (2**(b-1) - 1) when symmetric, (max - min) / (2**b - 1) otherwise.

    For levels, the starting scale of the format: absmax / largest level, the mean magnitude, or the largest exponent minus that of the
    largest level.
    """
    if not scheme.is_integer:
        return Scales(_level_scales(groups, scheme), torch.zeros(groups.shape[:2], device=groups.device))
    if scheme.symmetric:
        extent = groups.abs().amax(-1)
        return Scales(storable(extent / (2 ** (scheme.bits - 1) - 1), scheme), torch.full_like(extent, 2 ** (scheme.bits - 1)))
    low, high = groups.amin(-1).clamp_(max=0), groups.amax(-1).clamp_(min=0)
    scale = storable((high - low) / (2**scheme.bits - 1), scheme)
    return Scales(scale, (-low / scale.float()).round_().clamp_(0, 2**scheme.bits - 1))


def _level_scales(groups: Tensor, scheme: Scheme) -> Tensor:
    magnitude = groups.abs()
    start = scheme.element.start
    if start == "mean":
        return storable(magnitude.sum(-1) / (magnitude > 0).sum(-1).clamp(min=1), scheme)
    extent = magnitude.amax(-1)
    if start == "exponent":
        largest = math.frexp(scheme.element.largest)[1]
        lower = torch.ldexp(torch.ones_like(extent), torch.frexp(extent).exponent - largest)
        return storable(torch.where(extent > 0, lower, extent), scheme)
    return storable(extent / levels_of(scheme.format).ascending[-1], scheme)


def storable(scale: Tensor, scheme: Scheme | None = None, exponents: Tensor | None = None) -> Tensor:
    """The nearest storable scale that is not zero: fp16 with its sign, or a positive power of two in float32.

    Args:
        scale: [rows, groups].
        scheme: the scheme, if it does not store scales in fp16.
        exponents: exponents of the rows for 8-bit scales, broadcastable to `scale` of any shape; None uses those of `scale` itself.

    Raises:
        NumericsError: if a scale exceeds fp16 or is NaN.
    """
    if not bool((scale.abs() <= LARGEST_SCALE).all()):
        raise NumericsError(f"a scale of {scale.abs().max().item():g} does not fit fp16 (at most 65504): keep this layer at bf16 or fp32")
    if scheme is not None and scheme.element.exponent_scales:
        return power_of_two(scale)
    if scheme is not None and scheme.small_scales:
        return nearest_small(scale, row_exponents(scale) if exponents is None else exponents)
    magnitude = scale.abs().clamp(min=SMALLEST_SCALE)
    return torch.where(scale < 0, -magnitude, magnitude).half()


def best_scales(groups: Tensor, scheme: Scheme, importance: Tensor | None = None) -> Scales:
    """The scales with the smallest (weighted) squared error over a grid of clipping ratios, then refitted.

    Args:
        groups: weights, float32 [rows, groups, group].
        scheme: of integers or levels.
        importance: non-negative weight of each column's squared error, broadcastable to `groups`; None weights all equally.
    """
    if importance is None and scheme.element.levels and 0.0 not in scheme.element.levels:
        importance = (groups != 0).float()  # the padding of a short group has no level
    rows_at_once = max(1, _CHUNK // max(1, groups.shape[1] * groups.shape[2]))
    parts = []
    for first in range(0, groups.shape[0], rows_at_once):
        chunk = groups[first : first + rows_at_once]
        share = importance if importance is None or importance.shape[0] == 1 else importance[first : first + rows_at_once]
        parts.append(_search(chunk, scheme, share))
    return settled(Scales(torch.cat([p.scale for p in parts]), torch.cat([p.zero_point for p in parts])), scheme)


def settled(scales: Scales, scheme: Scheme) -> Scales:
    """Scales chosen per group, rounded so that they can be stored together: the largest of a row determines the resolution."""
    return Scales(storable(scales.scale, scheme), scales.zero_point) if scheme.small_scales else scales


def _search(groups: Tensor, scheme: Scheme, importance: Tensor | None) -> Scales:
    covering = minmax_scales(groups, scheme)
    best, least = covering, losses(groups, covering, scheme, importance)
    for candidate in _grid(groups, covering, scheme):
        best, least = _keep_better(groups, candidate, best, least, scheme, importance)
    for _ in range(_REFITS):
        best, least = _keep_better(groups, fitted_scales(groups, groups, best, scheme, importance), best, least, scheme, importance)
    return best


def _grid(groups: Tensor, covering: Scales, scheme: Scheme) -> list[Scales]:
    if scheme.symmetric:
        scale = covering.scale.float()
        return [Scales(storable(_within(scale * ratio), scheme), covering.zero_point) for ratio in scheme.element.clip_ratios]
    low, high = groups.amin(-1).clamp_(max=0), groups.amax(-1).clamp_(min=0)
    steps = 2**scheme.bits - 1
    found = []
    for cut_low, cut_high in scheme.element.range_clips:
        scale = storable((high * cut_high - low * cut_low) / steps, scheme)
        found.append(Scales(scale, (-low * cut_low / scale.float()).round_().clamp_(0, steps)))
    return found


def _within(scale: Tensor) -> Tensor:
    """Scales clamped to the range of fp16; the search may try larger ones."""
    return scale.clamp(-LARGEST_SCALE, LARGEST_SCALE)


def losses(groups: Tensor, scales: Scales, scheme: Scheme, importance: Tensor | None = None) -> Tensor:
    """The (weighted) squared error of each group with nearest codes; float32 [rows, groups]."""
    scale = scales.scale.float().unsqueeze(-1)
    if scheme.is_integer and scheme.symmetric:  # like the others without the zero point, which is the middle
        half = 2 ** (scheme.bits - 1)
        steps = (groups / scale).round_().clamp_(-half, half - 1)
    else:
        steps = round_to_scales(groups, scales, scheme).sub_(scales.zero_point.unsqueeze(-1))
    error = steps.mul_(scale).sub_(groups).square_()
    return error.sum(-1) if importance is None else error.mul_(importance).sum(-1)


def _keep_better(
    groups: Tensor, candidate: Scales, best: Scales, least: Tensor, scheme: Scheme, importance: Tensor | None
) -> tuple[Scales, Tensor]:
    loss = losses(groups, candidate, scheme, importance)
    better = loss < least
    kept = Scales(torch.where(better, candidate.scale, best.scale), torch.where(better, candidate.zero_point, best.zero_point))
    return kept, torch.where(better, loss, least)


def fitted_scales(groups: Tensor, wanted: Tensor, scales: Scales, scheme: Scheme, importance: Tensor | None = None) -> Scales:
    """The scales that fit the codes of `groups` under `scales` best to `wanted`, in (weighted) squared error.

    Args:
        groups: weights, float32 [rows, groups, group], whose nearest codes are used.
        wanted: the values that these codes should represent, in the same shape.
        scales: determine the codes; their zero points stay.
        scheme: of integers or levels.
        importance: like for `best_scales`.
    """
    steps = round_to_scales(groups, scales, scheme).sub_(scales.zero_point.unsqueeze(-1))
    weighted = steps if importance is None else steps * importance
    norm = (weighted * steps).sum(-1)
    fitted = torch.where(norm > 0, (weighted * wanted).sum(-1) / norm.clamp(min=1e-30), scales.scale.float())
    return Scales(storable(_within(fitted), scheme), scales.zero_point)
