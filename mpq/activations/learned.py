"""Ranges that follow gradients: the step of each fixed range is trained, its zero point stays (LSQ: Esser et al. 2020, arXiv 1902.08153).

Values inside of a range pull at the step by how far rounding moved them, clipped values by their code. A step only takes values that are
written in as many characters as its first one, so that the bytes of an artifact's header stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mpq.activations.rounding import Change, changes_of, rounded
from mpq.formats.activations import LEVELS, STATIC
from mpq.records.activations import ActivationGroup, Groups, RoundedTensor

_DIGITS = 17  # of a float, at most
_LARGEST_CHANGE = 0.5  # of a step, as a share of it


class LearnedRanges:
    """The groups of a plan, with steps that an optimizer moves.

    Args:
        groups: to begin with.

    Attributes:
        change: of each step, as a share of the first one; the optimizer moves it.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._first = [float(tensor.scale or 0) for group in groups.values() if group.scheme == STATIC for tensor in group.tensors]
        self._gradient = torch.zeros(len(self._first), dtype=torch.float64)
        self.change = torch.zeros(len(self._first))
        self.round()

    @property
    def groups(self) -> Groups:
        """As they would be stored now."""
        steps = iter(self._steps)

        def now(group: ActivationGroup) -> ActivationGroup:
            if group.scheme != STATIC:
                return group
            return replace(group, tensors=tuple(replace(tensor, scale=next(steps)) for tensor in group.tensors))

        return {name: now(group) for name, group in self._groups.items()}

    def round(self) -> None:
        """Take up `change`."""
        share = self.change.double().clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        self._steps = [as_long(first * (1 + float(each)), first) for first, each in zip(self._first, share, strict=True)]

    def changes(self) -> dict[str, Change]:
        """What happens to each reader's input, noting gradients of the steps where there are any."""
        found, tensors = changes_of(self._groups), [t for group in self._groups.values() if group.scheme == STATIC for t in group.tensors]
        for place, tensor in enumerate(tensors):
            found |= dict.fromkeys(tensor.readers, self._change(place, tensor))
        return found

    def take(self) -> None:
        """The gradients that were noted become those of `change`."""
        self.change.grad = self._gradient.to(self.change.dtype)
        self._gradient = torch.zeros_like(self._gradient)

    def _change(self, place: int, tensor: RoundedTensor) -> Change:
        zero_point = int(tensor.zero_point or 0)

        def change(values: Tensor) -> Tensor:
            step = self._steps[place]
            if values.requires_grad:
                values.register_hook(self._noted(place, values.detach(), step, zero_point))  # type: ignore[no-untyped-call]
            return rounded(values.detach(), step, zero_point)

        return change

    def _noted(self, place: int, values: Tensor, step: float, zero_point: int) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            self._gradient[place] += self._first[place] * float((gradient.float() * slope(values, step, zero_point)).sum())

        return note


def slope(values: Tensor, step: float, zero_point: int) -> Tensor:
    """The derivative of rounded values by the step, float32, with the rounding to codes taken as the identity."""
    wide = values.float() / step
    codes = wide.round()
    clipped = codes.clamp(-zero_point, LEVELS - zero_point)
    return torch.where(codes == clipped, clipped - wide, clipped)


def as_long(value: float, like: float) -> float:
    """The number nearest to `value` that is written in as many characters as `like`; `like` itself if there is none."""
    wanted, found = len(repr(like)), list[float]()
    for digits in range(1, _DIGITS + 1):
        head, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        last = 10.0 ** (int(exponent) - digits + 1)
        near = (float(f"{float(head + 'e' + exponent) + away * last:.{digits - 1}e}") for away in (0, -1, 1))
        found += [each for each in near if each > 0 and len(repr(each)) == wanted]
    return min(found, key=lambda each: abs(each - value), default=like)


def moved_ranges(before: Groups, after: Groups) -> int:
    """How many tensors of the same groups have another range."""
    pairs = [zip(group.tensors, after[name].tensors, strict=True) for name, group in before.items()]
    return sum(first != second for pair in pairs for first, second in pair)
