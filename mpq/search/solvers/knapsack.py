"""Exact allocation: the multiple-choice knapsack, solved to proven optimality. No torch.

Minimize sum of error[g, choice[g]] subject to sum of cost[g, choice[g]] <= limit, one option per group. Costs are integers.

1. Options that are dominated by another option of the same group are dropped.
2. The linear relaxation is solved by its convex hull (Zemel 1980; Sinha and Zoltners 1979). It gives a multiplier, a lower bound and, after
    filling the remaining budget, a feasible plan.
3. An allowed error is set just above the bound. Options whose Lagrangian bound exceeds it are removed; groups with one remaining option are
    settled. Dynamic programming over the other groups keeps the non-dominated (cost, error) pairs whose bound is within the allowed error.
4. If that finds a plan, it is optimal. If not, the bound is proven to be higher, and the distance allowed above it is doubled, finally up
    to the feasible plan's error. The core stays small (as in Pisinger 1995), so a failed round is cheap.

If there are more than `MOST_PAIRS` pairs, the best known plan is returned with its proven gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpq.search.solvers.relaxation import Relaxation, relax, undominated

MOST_PAIRS = 40_000_000  # pairs examined in one round
_SHARES = tuple(
    2.0**-k for k in range(20, -1, -1)
)  # share of the distance from the bound to a feasible plan; failed rounds are the cheap ones
Array = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Solution:
    """A choice of one option per group.

    Args:
        choice: index of the option of each group.
        error: its total error.
        bound: no choice within the limit has a smaller error.
    """

    choice: tuple[int, ...]
    error: float
    bound: float

    @property
    def gap(self) -> float:
        """Proven relative distance to the optimum: 0.0 is a certificate of optimality."""
        return 0.0 if self.error <= self.bound else (self.error - self.bound) / max(abs(self.error), 1e-300)


def solve(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]], limit: int) -> Solution | None:
    """The choice with the smallest total error whose total cost is at most `limit`; None if there is none.

    Args:
        costs: cost of each option of each group, integers.
        errors: error of each option of each group, finite.
        limit: limit for the total cost.
    """
    kept = [undominated(c, e) for c, e in zip(costs, errors, strict=True)]
    cost = [np.array([costs[g][j] for j in options], dtype=np.int64) for g, options in enumerate(kept)]
    exponent = _exponent(errors)
    error = [np.ldexp([errors[g][j] for j in options], -exponent) for g, options in enumerate(kept)]
    if sum(int(c[0]) for c in cost) > limit:
        return None
    relaxation = relax(cost, error, limit)
    choice, bound = _prove(cost, error, limit, relaxation)
    chosen = tuple(options[j] for options, j in zip(kept, choice, strict=True))
    total = math.fsum(row[j] for row, j in zip(errors, chosen, strict=True))
    return Solution(chosen, total, min(float(np.ldexp(bound, exponent)), total))


def _exponent(errors: Sequence[Sequence[float]]) -> int:
    """The power of two that scales the largest error to about 1, so that products with costs neither overflow nor vanish."""
    return math.frexp(max((abs(error) for row in errors for error in row), default=0.0))[1]


def _prove(cost: list[Integers], error: list[Array], limit: int, relaxation: Relaxation) -> tuple[list[int], float]:
    """The best choice, and a proven bound on the error of any choice."""
    best, value, bound = relaxation.choice, _total(error, relaxation.choice), relaxation.bound
    reduced = _Reduced(cost, error, limit, relaxation.multiplier)
    spread = value - bound
    if spread <= 1e-3 * reduced.rounding:
        return best, value
    for share in _SHARES:
        if share < 1 and share * spread < reduced.rounding:
            continue
        allowed = min(relaxation.bound + share * spread, value)
        found = reduced.within(allowed + reduced.rounding)
        if found is None:
            return best, bound
        if found and (exact := _total(error, found)) < value:
            best, value = found, exact
        if value <= allowed:
            return best, value
        bound = max(bound, allowed)
    return best, value


def _total(error: list[Array], choice: Sequence[int]) -> float:
    return math.fsum(float(e[j]) for e, j in zip(error, choice, strict=True))


class _Reduced:
    """The problem in terms of the multiplier: the loss of each option against its group's best Lagrangian value."""

    def __init__(self, cost: list[Integers], error: list[Array], limit: int, multiplier: float) -> None:
        self._cost, self._error, self._limit, self._multiplier = cost, error, limit, multiplier
        lagrangian = [e + multiplier * c for c, e in zip(cost, error, strict=True)]
        self._least = [float(v.min()) for v in lagrangian]
        self._bound = math.fsum(self._least) - multiplier * limit
        self._loss = np.concatenate([v - low for v, low in zip(lagrangian, self._least, strict=True)])
        self._starts = np.cumsum([0, *(len(c) for c in cost[:-1])])
        magnitude = math.fsum(map(abs, self._least)) + multiplier * abs(limit) + max(float(np.abs(e).max()) for e in error)
        self.rounding = 1e-12 * max(magnitude, 1e-280)  # rounding of the bound must not cut off the optimum

    def within(self, allowed: float) -> list[int] | None:
        """The best choice among those whose bound is within `allowed`; empty if there is none, None if it needs too much memory."""
        promising = self._loss <= allowed - self._bound
        counts = np.add.reduceat(promising.astype(np.int64), self._starts)
        first = np.flatnonzero(promising)[np.cumsum(counts) - counts] - self._starts
        choice: list[int] = first.tolist()
        options = {int(g): np.flatnonzero(promising[self._starts[g] :][: len(self._cost[g])]) for g in np.flatnonzero(counts > 1)}
        settled = [g for g in range(len(choice)) if g not in options]
        room = self._limit - sum(int(self._cost[g][choice[g]]) for g in settled)
        if not options:
            return choice if room >= 0 else []
        taken = self._pairs(options, room, math.fsum(float(self._error[g][choice[g]]) for g in settled), allowed)
        if taken:
            for g, option in taken.items():
                choice[g] = option
            return choice
        return None if taken is None else []

    def _pairs(self, options: dict[int, Integers], room: int, paid: float, allowed: float) -> dict[int, int] | None:
        """Dynamic programming over the groups in `options`: the option of each, empty if none fits, None if there are too many pairs."""
        order = sorted(options, key=lambda g: -self._second(g, options[g]))  # keeps the number of pairs small for as long as possible
        cheapest = sum(int(self._cost[g][options[g]].min()) for g in order)
        ahead = math.fsum(self._least[g] for g in order)
        costs, errors, most = np.zeros(1, dtype=np.int64), np.full(1, paid), MOST_PAIRS
        history: list[tuple[Integers, Integers]] = []
        for g in order:
            count, own = len(costs), options[g]
            most -= count * len(own)
            if most < 0:
                return None
            cheapest -= int(self._cost[g][own].min())
            ahead -= self._least[g]
            new_costs = (costs[None, :] + self._cost[g][own][:, None]).ravel()
            new_errors = (errors[None, :] + self._error[g][own][:, None]).ravel()
            fits = (new_costs + cheapest <= room) & (new_errors + ahead + self._multiplier * (new_costs - room) <= allowed)
            index = _non_dominated(np.flatnonzero(fits), new_costs, new_errors)
            history.append(((index % count).astype(np.int32), own[index // count].astype(np.int16)))
            costs, errors = new_costs[index], new_errors[index]
            if not len(index):
                return {}
        return _backwards(order, history, int(np.argmin(errors)))

    def _second(self, g: int, options: Integers) -> float:
        return float(np.sort(self._loss[self._starts[g] + options])[1])


def _non_dominated(index: Integers, costs: Integers, errors: Array) -> Integers:
    """The entries of `index` in order of cost, each with a strictly smaller error than all cheaper ones."""
    if not len(index):
        return index
    index = index[np.argsort(costs[index], kind="stable")]  # already sorted runs are merged quickly
    smallest = np.minimum.accumulate(errors[index])
    index = index[np.concatenate(([True], errors[index][1:] < smallest[:-1]))]
    return index[np.concatenate((costs[index][1:] > costs[index][:-1], [True]))]


def _backwards(order: list[int], history: list[tuple[Integers, Integers]], state: int) -> dict[int, int]:
    taken: dict[int, int] = {}
    for g, (parents, options) in zip(reversed(order), reversed(history), strict=True):
        taken[g] = int(options[state])
        state = int(parents[state])
    return taken
