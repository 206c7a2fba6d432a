"""A local model of a plan's error, linearized at a measured plan and corrected by every plan measured since. No torch.

The table has the error of each layer alone, around the reference. At low bits, the other layers' errors are large, and the error of a layer
in combination with them is different. At a measured plan P, the *anchor*, gradients give it for all layers and schemes at once
(`records/slopes.py`):

    error(plan) = error(P) + sum over groups of (first + second + correction) of their options

- `first` is the gradient times the change of the weights; it includes interactions with the current errors of all other layers.
- `second` is half of the change's own quadratic form: the larger of the curvature at P and the sum of the table's errors of the two
    schemes. The former ignores higher-order effects of large changes, the latter ignores interactions.
- corrections are normally distributed; their spread is a share of `second` plus the noise of `first` over samples. Each measured plan is
    one noisy observation of their sum, noisier the further from P, because changes of several groups interact (Bayesian linear regression).

The sum is minimized exactly under the limits. This is sequential quadratic programming (Nocedal and Wright 2006, chapter 18) with a
diagonal model and a combinatorial subproblem; draws of the corrections replace a trust region (Thompson sampling, as in `beliefs.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.errors import MpqError
from mpq.records.finalist_names import PLAIN
from mpq.records.slopes import Slopes
from mpq.search.problem import Option, Problem
from mpq.search.stages.base import Proposal, Setting, Stage, Turn
from mpq.search.stages.base import Rows as Expected
from mpq.search.stages.draws import Matrix, Vector, drawn, normal
from mpq.search.study import Measured

_SPREAD = 0.5  # standard deviation of a correction, as a share of `second`
_TOGETHER = 0.5  # correlation of the corrections of one group's options
_COMMON = 0.25  # variance common to all corrections, as a share of their own
_NOISE = 0.02  # standard deviation of an observation, as a share of the anchor's error
_INTERACTION = 0.1  # the same for each pair of changed groups, as a share of the geometric mean of their `second`
_TEMPERATURE = 0.5  # spread of the draws, relative to the model's own
_FEWEST = 16  # trials below which slopes are not worth their cost
_FAR, _LONG = 3, 8  # slopes are computed again if the best plan differs in so many groups, or at all after so many trials
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Prices:
    """How each option of each group would change the error at the anchor; zero for the anchor's own options.

    Args:
        first: first-order effect.
        noise: the standard error of `first` over samples.
        second: second-order effect.
        cost: cost of computing them, in passes over the calibration samples.
    """

    first: Rows
    noise: Rows
    second: Rows
    cost: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {name: [list(row) for row in getattr(self, name)] for name in ("first", "noise", "second")} | {"cost": self.cost}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prices:
        """The inverse of `to_dict`."""
        first, noise, second = (tuple(tuple(map(float, row)) for row in data[name]) for name in ("first", "noise", "second"))
        return cls(first, noise, second, float(data["cost"]))


def prices_of(problem: Problem, anchor: Sequence[int], slopes: Slopes) -> Prices:
    """The values of layers and schemes, summed to groups and options; the table's own where there is no finite gradient."""
    rows = [
        [_price(option, group.options[taken], slopes) for option in group.options]
        for group, taken in zip(problem.groups, anchor, strict=True)
    ]
    first, noise, second = (tuple(tuple(figures[part] for figures in row) for row in rows) for part in range(3))
    return Prices(first, noise, second, slopes.cost)


def _price(option: Option, taken: Option, slopes: Slopes) -> tuple[float, float, float]:
    if option is taken:
        return 0.0, 0.0, 0.0
    alone, before = max(option.error, 0.0), max(taken.error, 0.0)
    changed = [pair for pair in option.schemes.items() if taken.schemes[pair[0]] != pair[1]]
    if all(pair in slopes.first for pair in changed):
        figures = np.sum([slopes.first[pair] for pair in changed], axis=0)
        first, second = float(figures.mean()), math.fsum(float(slopes.second[pair].mean()) for pair in changed)
        noise = float(figures.std(ddof=1)) / math.sqrt(len(figures)) if len(figures) > 1 else alone + before
        if math.isfinite(first) and math.isfinite(second) and math.isfinite(noise):
            return first, noise, max(second, alone + before)
    return -2 * before, alone + before, alone + before


class Local:
    """The error of plans near an anchor.

    Args:
        problem: the groups.
        anchor: a measured plan, one option per group.
        error: its mean error.
        prices: computed at the anchor.
    """

    def __init__(self, problem: Problem, anchor: tuple[int, ...], error: float, prices: Prices) -> None:
        self.anchor, self._error = anchor, error
        sizes = [len(group.options) for group in problem.groups]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._second: Vector = np.concatenate([np.array(row) for row in prices.second])
        self.mean: Vector = np.concatenate([np.array(row) for row in prices.first]) + self._second
        own = np.hypot(_SPREAD * self._second, np.concatenate([np.array(row) for row in prices.noise]))
        groups = np.repeat(np.arange(len(sizes)), sizes)
        same = _TOGETHER * (groups[:, None] == groups[None, :]) + (1 - _TOGETHER) * np.eye(len(own))
        self.covariance: Matrix = np.outer(own, own) * same + _COMMON * _SPREAD**2 * np.outer(self._second, self._second)

    def observe(self, choice: Sequence[int], error: float) -> None:
        """Learn from a measured plan, in place; an error that is not finite is ignored."""
        if not math.isfinite(error):
            return
        taken = self._starts + np.array(choice)
        second = self._second[taken]
        pairs = float(second.sum()) ** 2 - float(np.square(second).sum())
        noise = (_NOISE * self._error) ** 2 + _INTERACTION**2 * max(pairs, 0.0)
        spread = self.covariance[:, taken].sum(1)
        variance = float(spread[taken].sum()) + noise
        if variance <= 0:
            return
        self.mean = self.mean + spread * ((error - self.predict(choice)) / variance)
        self.covariance = self.covariance - np.outer(spread, spread) / variance

    def predict(self, choice: Sequence[int]) -> float:
        """The expected error of a plan."""
        return self._error + float(self.mean[self._starts + np.array(choice)].sum())

    def draw(self, generator: np.random.Generator, *, widened: float = 1.0) -> list[list[float]]:
        """Prices by group and option under one random correction, for the exact solver; `widened` multiplies the spread."""
        return self._rows(self.mean + widened * _TEMPERATURE * normal(self.covariance, generator))

    def expected(self) -> list[list[float]]:
        """The expected prices by group and option."""
        return self._rows(self.mean)

    def moved(self, choice: Sequence[int]) -> int:
        """How many groups of a plan differ from the anchor."""
        return sum(a != b for a, b in zip(choice, self.anchor, strict=True))

    def _rows(self, prices: Vector) -> list[list[float]]:
        return [part.tolist() for part in np.split(prices, self._starts[1:])]


class SlopesStage(Stage):
    """Plans drawn from the local model, which follows the best plan; only if the model gives gradients."""

    name = "slopes"
    title = PLAIN[name]
    place = 10
    share_with_slopes = 0.5

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._local: Local | None = None
        self._observed: list[Measured] = []  # plans since the first anchor: earlier ones are far from any anchor
        self._since, self._cost = 0, 0.0

    @staticmethod
    def possible(setting: Setting) -> bool:
        """Whether there are gradients and enough trials."""
        return setting.find_slopes is not None and setting.trials >= _FEWEST

    def begin(self, best: Measured) -> float | None:
        """Compute the first slopes and return the cost; None if there are none."""
        return self._anchored(best) or None if self.possible(self.setting) else None

    def prepare(self, best: Measured, room: float) -> float:
        """Move the local model to the best plan, if that is due and within `room`, and return the cost."""
        assert self._local is not None, "the stage has begun"
        moved = self._local.moved(best.choice)
        due = moved >= _FAR or (moved and self._since >= _LONG)
        return self._anchored(best) if due and room >= 2 * self._cost else 0.0

    def propose(self, turn: Turn) -> Proposal | None:
        """The plan of one draw; right after slopes were computed, the likeliest plan."""
        assert self._local is not None, "the stage has begun"
        return drawn(self.setting.problem, self._local, turn, likeliest=self._since == 0)

    def observe(self, found: Measured) -> None:
        """Correct the local model."""
        if self._local is not None:
            self._since += 1
            self._observed.append(found)
            self._local.observe(found.choice, found.mean)

    def expected(self) -> Expected | None:
        """The expected errors under the local model."""
        return None if self._local is None else self._local.expected()

    def _anchored(self, best: Measured) -> float:
        """Anchor the local model at the best plan and return the cost; 0.0 if there are no slopes there."""
        prices = self._prices(best)
        if prices is None:
            return 0.0
        self._local, self._cost, self._since = Local(self.setting.problem, best.choice, best.mean, prices), prices.cost, 0
        for found in self._observed:
            if found.choice != best.choice:
                self._local.observe(found.choice, found.mean)
        return prices.cost

    def _prices(self, best: Measured) -> Prices | None:
        """Prices at the best plan, from the notebook if any worker has computed them."""
        name, problem = "slopes of options " + ",".join(map(str, best.choice)), self.setting.problem
        kept = self.setting.notebook.kept(name)
        if kept is not None:
            return Prices.from_dict(kept)
        assert self.setting.find_slopes is not None, "the stage does not begin without"
        try:
            prices = prices_of(problem, best.choice, self.setting.find_slopes(problem.schemes(best.choice)))
        except MpqError as error:
            self.notes = (*self.notes, f"no slopes: {error}")
            return None
        self.setting.notebook.keep(name, prices.to_dict())
        return prices
