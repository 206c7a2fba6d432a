"""Exact allocation: the multiple-choice knapsack, solved to proven optimality. No torch.

Minimise sum of error[g, choice[g]] subject to sum of cost[g, choice[g]] <= limit, one option per group. Costs are integers.

1. Options that another option of the same group beats in cost and error are dropped.
2. The linear relaxation is solved by its convex hull (Zemel 1980; Sinha and Zoltners 1979): it gives a multiplier, a lower bound,
   and by filling up the leftover a feasible plan.
3. Options whose Lagrangian bound exceeds an allowed error are removed; groups with one option left are settled.
4. Dynamic programming over the rest keeps the non-dominated (cost, error) pairs whose bound is within the allowed error. If
   it finds a plan, that plan is optimal; if not, the allowed error is widened, at last to the feasible plan's own.

If the pairs outgrow `MOST_STATES`, the best plan known is returned with the gap that is proven.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpq.search.hull import Relaxation, relax

MOST_STATES = 2_000_000
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
    """The choice with the least total error whose total cost is at most `limit`; None if there is none.

    Args:
        costs: cost of each option of each group, integers.
        errors: error of each option of each group, finite.
        limit: greatest total cost.
    """
    kept = [_undominated(c, e) for c, e in zip(costs, errors, strict=True)]
    cost = [np.array([costs[g][j] for j in options], dtype=np.int64) for g, options in enumerate(kept)]
    error = [np.array([errors[g][j] for j in options], dtype=np.float64) for g, options in enumerate(kept)]
    if sum(int(c[0]) for c in cost) > limit:
        return None
    relaxation = relax(cost, error, limit)
    choice, bound = _prove(cost, error, limit, relaxation)
    total = math.fsum(float(e[j]) for e, j in zip(error, choice, strict=True))
    return Solution(tuple(options[j] for options, j in zip(kept, choice, strict=True)), total, min(bound, total))


def _undominated(costs: Sequence[int], errors: Sequence[float]) -> list[int]:
    """Indices of the options in order of cost, each with a strictly smaller error than all cheaper ones."""
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda j: (costs[j], errors[j], j)):
        if not found or errors[index] < errors[found[-1]]:
            found.append(index)
    return found


def _prove(cost: list[Integers], error: list[Array], limit: int, relaxation: Relaxation) -> tuple[list[int], float]:
    best = relaxation.choice
    value = math.fsum(float(e[j]) for e, j in zip(error, best, strict=True))
    slack = 1e-9 * max(abs(value), 1e-300)  # rounding in the bound must not cut off the optimum
    spread = value - relaxation.bound
    if spread <= slack * 1e-3:
        return best, value
    for share in (0.01, 0.1, 1.0):
        allowed = relaxation.bound + share * spread
        found = _within(cost, error, limit, relaxation.multiplier, allowed + slack)
        if found is None:
            return best, relaxation.bound
        if found:
            exact = math.fsum(float(e[j]) for e, j in zip(error, found, strict=True))
            if exact <= allowed:
                return found, exact
            if exact < value:
                best, value = found, exact
    return best, value


def _within(cost: list[Integers], error: list[Array], limit: int, multiplier: float, allowed: float) -> list[int] | None:
    """The best choice among those whose bound stays within `allowed`; empty if there is none, None if it takes too much memory."""
    lagrangian = [e + multiplier * c for c, e in zip(cost, error, strict=True)]
    least = [float(v.min()) for v in lagrangian]
    bound = math.fsum(least) - multiplier * limit
    options = [np.flatnonzero(v - low <= allowed - bound) for v, low in zip(lagrangian, least, strict=True)]
    choice = [int(o[0]) for o in options]
    core = sorted((g for g, o in enumerate(options) if len(o) > 1), key=lambda g: -len(options[g]))
    fixed = set(range(len(options))) - set(core)
    room = limit - sum(int(cost[g][choice[g]]) for g in fixed)
    paid = math.fsum(float(error[g][choice[g]]) for g in fixed)
    cheapest = sum(int(cost[g][options[g]].min()) for g in core)
    ahead = math.fsum(least[g] for g in core)
    states_cost, states_error = np.zeros(1, dtype=np.int64), np.full(1, paid)
    history: list[tuple[Integers, Integers]] = []
    for g in core:
        cheapest -= int(cost[g][options[g]].min())
        ahead -= least[g]
        count = len(states_cost)
        if count * len(options[g]) > MOST_STATES:
            return None
        new_cost = (states_cost[None, :] + cost[g][options[g]][:, None]).ravel()
        new_error = (states_error[None, :] + error[g][options[g]][:, None]).ravel()
        promising = (new_cost + cheapest <= room) & (new_error + ahead + multiplier * (new_cost - room) <= allowed)
        index = np.flatnonzero(promising)
        index = index[np.lexsort((new_error[index], new_cost[index]))]
        smallest = np.minimum.accumulate(new_error[index])
        index = index[np.concatenate(([True], new_error[index][1:] < smallest[:-1]))] if len(index) else index
        history.append((index % count, options[g][index // count]))
        states_cost, states_error = new_cost[index], new_error[index]
        if not len(index):
            return []
    state = int(np.argmin(states_error))
    for g, (parents, taken) in zip(reversed(core), reversed(history), strict=True):
        choice[g] = int(taken[state])
        state = int(parents[state])
    return choice
