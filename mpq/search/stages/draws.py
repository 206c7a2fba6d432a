"""Plans drawn at random from a model of the layers' errors (Thompson sampling), decoded by the exact solver. No torch."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mpq.search.problem import Problem
from mpq.search.stages.base import Proposal, Rows, Turn
from mpq.search.stages.swaps import describe

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
_REDRAWS = 20  # known plans drawn in a row before the stage ends, each from a wider distribution
_WIDENING = 0.25


class Model(Protocol):
    """A random model of the errors by group and option."""

    def draw(self, generator: np.random.Generator, *, widened: float = 1.0) -> Rows:
        """Errors by group and option under one draw; `widened` multiplies the spread, and 0 gives the mean."""


def normal(covariance: Matrix, generator: np.random.Generator) -> Vector:
    """One draw from the normal distribution of mean zero."""
    values, vectors = np.linalg.eigh(covariance)
    drawn: Vector = vectors @ (np.sqrt(np.clip(values, 0.0, None)) * generator.standard_normal(len(values)))
    return drawn


def drawn(problem: Problem, model: Model, turn: Turn, *, likeliest: bool = False) -> Proposal | None:
    """An unknown plan from one draw of the model; with `likeliest`, the plan at the mean first. None if all draws are known plans."""
    for redraw in range(_REDRAWS):
        mean = likeliest and redraw == 0
        solution = problem.solve(model.draw(turn.generator, widened=0.0 if mean else 1 + _WIDENING * redraw))
        assert solution is not None, "the problem was checked to be feasible"
        choice = solution.choice
        if choice not in turn.known:
            return Proposal(lambda _, choice=choice: choice, describe(problem, turn.best.choice, choice))  # type: ignore[misc]
    return None
