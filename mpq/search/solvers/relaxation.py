"""The linear relaxation of the allocation problem, by the lower convex hull of each group's options. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Relaxation:
    """What the relaxation gives.

    Args:
        choice: a feasible choice: the relaxation's whole steps, then whatever still fits, best value first.
        bound: no choice within the limit has a smaller error.
        multiplier: error per unit of cost at the limit.
    """

    choice: list[int]
    bound: float
    multiplier: float


def relax(cost: list[Integers], error: list[Array], limit: int) -> Relaxation:
    """Solve the relaxation. Options of each group are in order of rising cost and falling error; the cheapest choice is within `limit`."""
    steps = [step for g in range(len(cost)) for step in _hull_steps(g, cost[g], error[g])]
    steps.sort(key=lambda step: (-step[0], step[1], step[2]))
    choice = [0] * len(cost)
    room = limit - sum(int(c[0]) for c in cost)
    multiplier = 0.0
    for efficiency, g, target in steps:
        price = int(cost[g][target] - cost[g][choice[g]])
        if price <= room:
            choice[g], room = target, room - price
        else:
            multiplier = max(multiplier, efficiency)  # that of the first step that does not fit whole
    bound = math.fsum(float((e + multiplier * c).min()) for c, e in zip(cost, error, strict=True)) - multiplier * limit
    _fill(choice, room, cost, error)
    return Relaxation(choice, bound, multiplier)


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
    """Spend what is left: repeatedly the step that saves most error and still fits, in place."""
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
    """Rows of unlike length as one array, filled up with `value`."""
    found = np.full((len(rows), max(map(len, rows), default=1)), value, dtype=rows[0].dtype if rows else float)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found
