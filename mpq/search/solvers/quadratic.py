"""The quadratic model: single-layer errors plus interactions between layers, minimized under the limit. No torch.

Minimize sum of error[a] + sum of C[a, b] over pairs a, b of chosen options in different groups. `evidence/prediction.py` computes C from
the signed values of method "fisher". This is the quadratic multiple-choice knapsack, which no method solves to optimality at these sizes,
so the answer is a local optimum with a bound:

1. Starting from the additive optimum, the model is linearized at the current plan and solved exactly, with several step lengths, as long as
    it improves.
2. Then the best change of one or two groups is made until no feasible change helps.
3. The bound is that of Gilmore (1962) and Lawler (1963): each option is charged its smallest possible interaction with each other group,
    and the linear problem is solved exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from mpq.evidence.prediction import Integers, Matrix, Vector, covariances, interactions, signal_of
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Problem
from mpq.search.solvers.knapsack import Solution

MOST_OPTIONS = 2500  # in all groups together: the matrix takes 50 MB, an exchange step a few times that
_STEPS = (1.0, 0.5, 0.25)  # share of the step toward the linearized interactions
_ROUNDS = 200


@dataclass(frozen=True)
class Quadratic:
    """A local optimum of the quadratic model.

    Args:
        choice: index of the option of each group.
        error: predicted with interactions.
        bound: no choice within the limit has a smaller predicted error.
    """

    choice: tuple[int, ...]
    error: float
    bound: float


def minimise(problem: Problem, table: Sensitivity, start: tuple[int, ...]) -> Quadratic | None:
    """The best choice found under the quadratic model.

    Args:
        problem: groups, costs and the limit, which `start` meets.
        table: with signed values of every scheme.
        start: a choice, one option per group.

    Returns:
        None if the table has no signed values, or if all groups together have more than `MOST_OPTIONS` options.
    """
    model = _model(problem, table)
    if model is None:
        return None
    choice = model.exchanged(model.linearised(start))
    error = model.error(choice)
    return Quadratic(choice, error, min(model.bound(), error))


def _model(problem: Problem, table: Sensitivity) -> _Model | None:
    options = [option for group in problem.groups for option in group.options]
    if len(options) > MOST_OPTIONS or any(pair not in table.products for option in options for pair in option.schemes.items()):
        return None
    products = np.stack([np.sum([table.products[pair] for pair in option.schemes.items()], axis=0) for option in options])
    groups = np.repeat(np.arange(len(problem.groups)), [len(group.options) for group in problem.groups])
    errors = [interactions(table, option.schemes) if len(option.schemes) > 1 else option.error for option in options]
    own = np.array(errors, dtype=np.float64)
    return _Model(problem, groups, own, np.concatenate(list(covariances(products, own, groups, signal_of(table)))))


class _Model:
    """The quadratic model of one problem; options are numbered consecutively over all groups."""

    def __init__(self, problem: Problem, groups: Integers, errors: Vector, together: Matrix) -> None:
        self._problem, self._groups, self._errors, self._together = problem, groups, errors, together
        limits: list[tuple[float, Sequence[Sequence[float]]]] = [
            (problem.limit, [[option.cost for option in group.options] for group in problem.groups])
        ]
        limits += [(limit.most - limit.constant, limit.costs) for limit in problem.beside]
        self._limits = [(most, np.array([cost for costs in rows for cost in costs], dtype=np.float64)) for most, rows in limits]
        self._starts = np.array([0, *accumulate(len(group.options) for group in problem.groups)][:-1])

    def error(self, choice: tuple[int, ...]) -> float:
        """The predicted error of a choice."""
        taken = self._starts + np.array(choice)
        return float(self._errors[taken].sum() + self._together[np.ix_(taken, taken)].sum())

    def linearised(self, start: tuple[int, ...]) -> tuple[int, ...]:
        """The best plan reached by repeatedly solving the model linearized at the last plan, as long as it improves."""
        best, value = start, self.error(start)
        for _ in range(_ROUNDS):
            company = 2 * self._together[:, self._starts + np.array(best)].sum(1)
            tried = [self._solved(self._errors + step * company) for step in _STEPS]
            found = min(tried, key=self.error)
            if self.error(found) >= value:
                break
            best, value = found, self.error(found)
        return best

    def exchanged(self, choice: tuple[int, ...]) -> tuple[int, ...]:
        """Change the best one or two groups at a time until nothing helps."""
        for _ in range(_ROUNDS):
            taken = self._starts + np.array(choice)
            own = taken[self._groups]  # by option: the current option of its group
            company = self._together[:, taken].sum(1)
            gain = self._errors - self._errors[own] + 2 * (company - company[own])
            change = self._together - self._together[:, own]
            pairs = gain[:, None] + gain[None, :] + 2 * (change - change[own, :])
            pairs[self._groups[:, None] == self._groups[None, :]] = np.inf
            for most, costs in self._limits:
                price = costs - costs[own]
                pairs[price[:, None] + price[None, :] > most - costs[taken].sum()] = np.inf
            a, b = np.unravel_index(int(pairs.argmin()), pairs.shape) if pairs.size else (0, 0)
            if pairs[a, b] >= -1e-12 * max(1e-30, abs(self.error(choice))):
                break
            changed = list(choice)
            for option in (int(a), int(b)):
                changed[int(self._groups[option])] = option - int(self._starts[self._groups[option]])
            choice = tuple(changed)
        return choice

    def bound(self) -> float:
        """A proven lower bound on the predicted error of any choice within the limit."""
        least = np.minimum.reduceat(self._together, self._starts, axis=1).sum(1)
        return self._solution(self._errors + least).bound

    def _solved(self, errors: Vector) -> tuple[int, ...]:
        return self._solution(errors).choice

    def _solution(self, errors: Vector) -> Solution:
        solution = self._problem.solve([part.tolist() for part in np.split(errors, self._starts[1:])])
        assert solution is not None, "the problem was checked to be feasible"
        return solution
