"""A quantized weight during tuning: trainable values behind its scales and codes, and their rounding.

A scale changes by a share of itself and stays storable: fp16 or 8 bits, with its sign. A code is the integer nearest to a trainable
position in units of the scale; gradients pass through the rounding unchanged (straight-through: Bengio et al. 2013, arXiv 1308.3432;
positions within a step of the weight: AutoRound, Cheng et al. 2023, arXiv 2309.05516). A position starts at the unquantized weight, clamped
to the cell of its code, so the codes are those of the quantizer until gradients change them. Zero points do not change, nor do the codes of
formats with a table of levels, unless requested: then a position moves between levels. A coded weight keeps its codes, because different
ones might not fit in its bytes; only its step changes, and with it the scales of all rows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mpq.tensors.common_rows import with_common_mean
from mpq.tensors.levels import from_codes, levels_of, to_codes
from mpq.tensors.quantized import QuantizedWeight, spread
from mpq.tensors.scales import LARGEST_SCALE, grouped, storable

_REACH = 0.45  # how far from the middle of its code a position may start
_LARGEST_CHANGE = 0.5  # change of a scale, as a share of it


class TunedWeight:
    """A quantized weight with trainable scales and codes.

    Args:
        weight: a weight under a scheme with fp16 scales.
        original: the unquantized matrix, float32 [rows, columns]; None keeps the codes fixed.
        tables: also train the codes of formats with a table of levels.
    """

    def __init__(self, weight: QuantizedWeight, original: Tensor | None, *, tables: bool = False) -> None:
        assert weight.scales is not None
        if original is not None and weight.common is not None:
            original = with_common_mean(original, weight.common)  # rows that are alike begin alike
        self._weight, self._first = weight, weight.scales.float()
        self.change = torch.zeros(1, 1) if weight.scheme.is_coded else torch.zeros_like(self._first)
        self.positions: Tensor | None = None
        if original is not None and weight.scheme.is_integer and not weight.scheme.is_coded:
            codes = weight.codes.float()
            away = (original - weight.dequantize()).div_(self._spread(self._first)).clamp_(-_REACH, _REACH)
            self.positions = codes.add_(away)
        elif original is not None and tables and not weight.scheme.is_integer:
            self.positions = _near(weight, original / self._spread(self._first))

    def quantized(self) -> QuantizedWeight:
        """The weight as it would be stored now."""
        return self.rounded(self.change, self.positions)

    def rounded(self, change: Tensor, positions: Tensor | None) -> QuantizedWeight:
        """The weight as it would be stored with these numbers in the place of `change` and `positions`."""
        limits = LARGEST_SCALE / self._first.abs() - 1
        share = change.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE).minimum(limits)
        if self._weight.scheme.is_coded:
            coded = self._weight.coded
            step = storable(torch.tensor(coded.step * (1 + float(share.min()))))
            return replace(self._weight, scales=coded._replace(step=float(step)).scales)
        return replace(self._weight, codes=self._codes(positions), scales=storable(self._first * (1 + share), self._weight.scheme))

    def to(self, device: torch.device) -> None:
        """Move all tensors to a device."""
        weight = self._weight
        scales, zero_points = (None if part is None else part.to(device) for part in (weight.scales, weight.zero_points))
        common = None if weight.common is None else weight.common.to(device)
        self._weight = replace(weight, codes=weight.codes.to(device), scales=scales, zero_points=zero_points, common=common)
        self._first = self._first.to(device)
        self.change = self.change.to(device)
        self.positions = None if self.positions is None else self.positions.to(device)

    def take(self, gradient: Tensor, now: QuantizedWeight) -> None:
        """Convert the gradient of the weight into those of `change` and `positions`, as their `grad`; arguments as in `gradients`."""
        self.change.grad, moved = self.gradients(gradient, now)
        if self.positions is not None:
            self.positions.grad = moved

    def gradients(self, gradient: Tensor, now: QuantizedWeight) -> tuple[Tensor, Tensor | None]:
        """The gradients of `change` and of `positions`, which is None if codes stay.

        Args:
            gradient: gradient of the error with respect to each value, float32 [rows, columns]; overwritten.
            now: the result of `quantized` when the gradient was measured.
        """
        assert now.scales is not None
        if now.common is not None:
            gradient = with_common_mean(gradient, now.common)  # and move alike
        steps = replace(now, scales=torch.ones_like(now.scales)).dequantize()
        own = grouped(steps.mul_(gradient), now.scheme).sum(-1).mul_(self._first)
        moved = None if self.positions is None else gradient.mul_(self._spread(now.scales.float()))
        return own.sum().view(1, 1) if self._weight.scheme.is_coded else own, moved

    def _codes(self, positions: Tensor | None) -> Tensor:
        scheme = self._weight.scheme
        if positions is None:
            return self._weight.codes
        if scheme.is_integer:
            return positions.round().clamp_(0, 2**scheme.bits - 1).byte()
        return to_codes(positions, scheme)

    def _spread(self, scales: Tensor) -> Tensor:
        return spread(scales, self._weight.scheme, self._weight.matrix[1])


def _near(weight: QuantizedWeight, wanted: Tensor) -> Tensor:
    """`wanted`, in units of the scale, clamped to values that round to the code of each weight."""
    levels = levels_of(weight.scheme.format)
    gaps = levels.ascending.diff()
    low = torch.cat([levels.ascending[:1] - gaps[:1] / 2, levels.bounds])
    high = torch.cat([levels.bounds, levels.ascending[-1:] + gaps[-1:] / 2])
    held = from_codes(weight.codes, weight.scheme)
    place = torch.bucketize(held, levels.bounds)
    share = 2 * _REACH
    return wanted.minimum(held + share * (high[place] - held)).maximum(held - share * (held - low[place]))
