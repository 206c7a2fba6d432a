"""Neighbors of a plan: move bits between two groups within the limit. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from mpq.records.finalist_names import PLAIN
from mpq.search.problem import Problem
from mpq.search.stages.base import Proposal, Stage, Turn

_MOVES = 150  # the most promising upward and downward moves, which are paired
_POOL = 64
_NAMED = 4
_DECAY = 12.0  # a neighbor this many places down the list is e times less likely


def propose(
    problem: Problem,
    choice: tuple[int, ...],
    tried: set[tuple[int, ...]],
    generator: np.random.Generator,
    errors: Sequence[Sequence[float]],
) -> tuple[int, ...] | None:
    """An untried neighbor within the limit: one group up, another down as far as needed; likelier if its predicted error is smaller.

    Args:
        problem: groups, costs and the limit.
        choice: the plan, one option per group.
        tried: plans not to propose.
        generator: source of chance.
        errors: predicted errors by group and option.
    """
    room = problem.limit - problem.cost(choice)
    changes = [
        (g, j, option.cost - group.options[choice[g]].cost, errors[g][j] - errors[g][choice[g]])
        for g, group in enumerate(problem.groups)
        for j, option in enumerate(group.options)
        if j != choice[g]
    ]
    ups = sorted((change for change in changes if change[2] > 0), key=lambda change: change[3])[:_MOVES]
    downs = sorted((change for change in changes if change[2] < 0), key=lambda change: change[3])[:_MOVES]
    neighbours: list[tuple[float, tuple[tuple[int, int], ...]]] = [(error, ((g, j),)) for g, j, cost, error in ups if cost <= room]
    for g, j, cost, error in ups:
        neighbours += [(error + lost, ((g, j), (h, k))) for h, k, freed, lost in downs if h != g and cost + freed <= room]
    ordered = (_moved(choice, moves) for _, moves in sorted(neighbours))
    untried = list(islice((neighbour for neighbour in ordered if neighbour not in tried and problem.fits(neighbour)), _POOL))
    if not untried:
        return None
    likely = np.exp(-np.arange(len(untried)) / _DECAY)
    return untried[int(generator.choice(len(untried), p=likely / likely.sum()))]


def describe(problem: Problem, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """The changes, for people: "conv1 int8 -> int4, linear int4 -> int8"; a few layers are named, others counted."""
    old, new = problem.schemes(before), problem.schemes(after)
    changes = [f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
    more = [f"and {len(changes) - _NAMED} more layers"] if len(changes) > _NAMED + 1 else []
    return ", ".join(changes[:_NAMED] + more if more else changes)


def _moved(choice: tuple[int, ...], moves: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    changed = list(choice)
    for g, j in moves:
        changed[g] = j
    return tuple(changed)


class SwapStage(Stage):
    """Neighbors of the best plan, the most promising first; when all of these are known, neighbors of the next best plan."""

    name = "swap"
    title = PLAIN[name]
    place = 90  # the last stage: it gets all remaining trials

    def propose(self, turn: Turn) -> Proposal | None:
        """An untried neighbor of the best plan that has one."""
        problem = self.setting.problem
        for near in (turn.best, *sorted(turn.finished, key=lambda found: found.mean)):
            choice = propose(problem, near.choice, turn.known, turn.generator, turn.expected)
            if choice is not None:
                return Proposal(lambda _, choice=choice: choice, describe(problem, near.choice, choice))  # type: ignore[misc]
        return None
