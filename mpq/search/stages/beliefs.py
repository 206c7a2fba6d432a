"""Beliefs: a correction of the table, learned from measured plans. No torch.

The table's errors are a prior. In a whole plan, a layer may matter more or less than alone, and its coarse options more or less than its
fine ones. So its error is modeled as the table's times exp(theta + phi * level), where level is the logarithm of the option's error
relative to the layer's mean. theta and phi are normally distributed, correlated between layers of the same kind and (theta) between
neighbors in depth. A measured plan is one noisy observation of the logarithm of the sum, and an extended Kalman filter (Anderson and Moore
1979) updates mean and covariance: the surprise is attributed to the layers that contribute most of the plan's error and are most uncertain.

A draw of (theta, phi), decoded by the exact solver, is a plan within the budget: Thompson sampling (Thompson 1933; Russo et al. 2018). The
draws here are closer to the mean than the full spread, which found better plans in few trials (benchmarks/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpq.limits import LARGEST_ERROR
from mpq.records.finalist_names import PLAIN
from mpq.search.problem import Problem
from mpq.search.stages.base import Proposal, Rows, Setting, Stage, Turn
from mpq.search.stages.draws import Matrix, Vector, drawn, normal
from mpq.search.stages.knobs import kind_of
from mpq.search.study import Measured

_OWN, _KIND, _DEPTH, _ALL = 0.5, 0.35, 0.35, 0.5  # standard deviations of theta, in natural logarithms
_SLOPE_OWN, _SLOPE_KIND, _SLOPE_ALL = 0.1, 0.1, 0.15  # the same for phi
_NEIGHBOURS = 0.1  # correlation length in depth, as a share of the model
_NOISE = 0.03  # standard deviation of an observation, in natural logarithms
_TEMPERATURE = 0.6  # spread of the draws, relative to the belief's own
_SMALLEST = 1e-12  # errors at or below zero are noise


class Beliefs:
    """A normal distribution of (theta, phi) over the groups of a problem.

    Args:
        problem: the groups and the table's errors.
    """

    def __init__(self, problem: Problem) -> None:
        self._errors = [np.array([max(option.error, _SMALLEST) for option in group.options]) for group in problem.groups]
        self._levels = [np.log(errors) - np.log(errors).mean() for errors in self._errors]
        count = len(problem.groups)
        kinds = [kind_of(group) for group in problem.groups]
        same = np.array([[a == b for b in kinds] for a in kinds], dtype=np.float64)
        depth = np.linspace(0.0, 1.0, count)
        near = np.exp(-0.5 * ((depth[:, None] - depth[None, :]) / _NEIGHBOURS) ** 2)
        theta = _OWN**2 * np.eye(count) + _KIND**2 * same + _DEPTH**2 * near + _ALL**2
        phi = _SLOPE_OWN**2 * np.eye(count) + _SLOPE_KIND**2 * same + _SLOPE_ALL**2
        nothing = np.zeros((count, count))
        self.mean: Vector = np.zeros(2 * count)
        self.covariance: Matrix = np.block([[theta, nothing], [nothing, phi]])

    def observe(self, choice: Sequence[int], error: float) -> None:
        """Learn from a measured plan, in place; an error that is not positive and finite is ignored."""
        parts = self._parts(choice)
        total = float(parts.sum())
        if not (math.isfinite(error) and error > 0 and math.isfinite(total) and total > 0):
            return
        shares = parts / total
        levels = np.array([levels[index] for levels, index in zip(self._levels, choice, strict=True)])
        gradient = np.concatenate([shares, shares * levels])
        spread = self.covariance @ gradient
        variance = float(gradient @ spread) + _NOISE**2
        self.mean = self.mean + spread * ((math.log(error) - math.log(total)) / variance)
        self.covariance = self.covariance - np.outer(spread, spread) / variance

    def predict(self, choice: Sequence[int]) -> float:
        """The expected error of a plan."""
        return float(self._parts(choice).sum())

    def draw(self, generator: np.random.Generator, *, widened: float = 1.0) -> list[list[float]]:
        """Errors by group and option under one random (theta, phi), for the exact solver; `widened` multiplies the spread."""
        return self._weighted(self.mean + widened * _TEMPERATURE * normal(self.covariance, generator))

    def expected(self) -> list[list[float]]:
        """Errors by group and option at the mean of (theta, phi)."""
        return self._weighted(self.mean)

    def _weighted(self, state: Vector) -> list[list[float]]:
        count = len(self._errors)
        with np.errstate(over="ignore"):
            return [
                np.minimum(errors * np.exp(theta + phi * levels), LARGEST_ERROR).tolist()
                for errors, levels, theta, phi in zip(self._errors, self._levels, state[:count], state[count:], strict=True)
            ]

    def _parts(self, choice: Sequence[int]) -> Vector:
        weighted = self._weighted(self.mean)
        return np.array([errors[index] for errors, index in zip(weighted, choice, strict=True)])


class LearnStage(Stage):
    """Plans drawn from the beliefs learned from all measured plans."""

    name = "learn"
    title = PLAIN[name]
    place = 30
    share = 0.5
    share_with_slopes = 0.3

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._beliefs = Beliefs(setting.problem)

    def propose(self, turn: Turn) -> Proposal | None:
        """The plan of one draw."""
        return drawn(self.setting.problem, self._beliefs, turn)

    def observe(self, found: Measured) -> None:
        """Learn from a measured plan."""
        self._beliefs.observe(found.choice, found.mean)

    def expected(self) -> Rows:
        """The expected errors under the beliefs."""
        return self._beliefs.expected()
