"""The linear relaxation of the allocation problem, by the lower convex hull of each group's options. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Relaxation:
    """The result of the relaxation.

    Args:
        choice: a feasible choice: the relaxation's whole steps, then the steps that still fit, best value first.
        bound: no choice within the limit has a smaller error.
        multiplier: error per unit of cost at the limit.
    """

    choice: list[int]
    bound: float
    multiplier: float


class Vertex(NamedTuple):
    """A vertex of the lower convex hull of all choices: no choice is below the line through neighboring vertices."""

    cost: int
    error: float
    choice: tuple[int, ...]


def undominated(costs: Sequence[int], errors: Sequence[float]) -> list[int]:
    """Indices of the options in order of cost, each with a strictly smaller error than all cheaper ones."""
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda j: (costs[j], errors[j], j)):
        if not found or errors[index] < errors[found[-1]]:
            found.append(index)
    return found


def hull_of(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]]) -> list[Vertex]:
    """The vertices in order of rising cost and falling error, from the cheapest choice to the one with the smallest error.

    Args:
        costs: cost of each option of each group.
        errors: error of each option of each group, finite.
    """
    kept = [undominated(c, e) for c, e in zip(costs, errors, strict=True)]
    cost = [np.array([costs[g][j] for j in options], dtype=np.int64) for g, options in enumerate(kept)]
    error = [np.array([errors[g][j] for j in options], dtype=np.float64) for g, options in enumerate(kept)]
    choice = [options[0] for options in kept]
    spent = sum(costs[g][j] for g, j in enumerate(choice))
    found = [Vertex(spent, math.fsum(errors[g][j] for g, j in enumerate(choice)), tuple(choice))]
    for _, g, target in _all_steps(cost, error):
        spent += costs[g][kept[g][target]] - costs[g][choice[g]]
        choice[g] = kept[g][target]
        found.append(Vertex(spent, math.fsum(errors[k][j] for k, j in enumerate(choice)), tuple(choice)))
    return found


def relax(cost: list[Integers], error: list[Array], limit: int) -> Relaxation:
    """Solve the relaxation. Options of each group are in order of rising cost and falling error; the cheapest choice is within `limit`."""
    choice = [0] * len(cost)
    room = limit - sum(int(c[0]) for c in cost)
    multiplier = 0.0
    for efficiency, g, target in _all_steps(cost, error):
        price = int(cost[g][target] - cost[g][choice[g]])
        if price <= room:
            choice[g], room = target, room - price
        else:
            multiplier = max(multiplier, efficiency)  # the value of the first step that does not fit completely
    bound = math.fsum(float((e + multiplier * c).min()) for c, e in zip(cost, error, strict=True)) - multiplier * limit
    _fill(choice, room, cost, error)
    return Relaxation(choice, bound, multiplier)


def _all_steps(cost: list[Integers], error: list[Array]) -> list[tuple[float, int, int]]:
    """The steps of all groups, the most efficient first."""
    steps = [step for g in range(len(cost)) for step in _hull_steps(g, cost[g], error[g])]
    return sorted(steps, key=lambda step: (-step[0], step[1], step[2]))


def _hull_steps(g: int, cost: Integers, error: Array) -> list[tuple[float, int, int]]:
    """(error saved per unit of cost, group, option reached) along the hull, falling in the first."""
    hull: list[int] = []
    for j in range(len(cost)):
        while len(hull) > 1 and _slope(cost, error, hull[-2], hull[-1]) <= _slope(cost, error, hull[-2], j):
            hull.pop()
        hull.append(j)
    return [(_slope(cost, error, a, b), g, b) for a, b in pairwise(hull)]


def _slope(cost: Integers, error: Array, a: int, b: int) -> float:
    return float((error[a] - error[b]) / (cost[b] - cost[a]))


def _fill(choice: list[int], room: int, cost: list[Integers], error: list[Array]) -> None:
    """Spend the remaining budget: repeatedly take the step that saves most error and still fits, in place."""
    groups = np.arange(len(cost))
    costs, errors = _padded(cost, np.iinfo(np.int64).max), _padded(error, -np.inf)
    taken = np.array(choice)
    while True:
        prices = costs - costs[groups, taken][:, None]
        saved = np.where((prices > 0) & (prices <= room), errors[groups, taken][:, None] - errors, 0.0)
        g, target = np.unravel_index(int(saved.argmax()), saved.shape)
        if saved[g, target] <= 0:
            return
        room -= int(prices[g, target])
        choice[g] = taken[g] = int(target)


def _padded(rows: list[Any], value: float) -> Any:
    """Rows of different lengths as one array, padded with `value`."""
    found = np.full((len(rows), max(map(len, rows), default=1)), value, dtype=rows[0].dtype if rows else float)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found
