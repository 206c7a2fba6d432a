"""Swap polish: exchange bits between two groups, measured; a swap is kept only when a paired test says that it helps. No torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from mpq.search.paired import compare
from mpq.search.problem import Problem
from mpq.search.study import Measured, Study

_MOVES = 150  # the most promising moves up and down that are paired
_POOL = 64


def polish(study: Study, start: Measured, *, trials: int, stop: Callable[[], bool], on_trial: Callable[[Measured], None]) -> Measured:
    """The best plan reached from `start` by up to `trials` measured swaps."""
    best = start
    tried: set[tuple[int, ...]] = {start.choice}
    finished = study.stage("swap")
    for number in range(trials):
        if number < len(finished):
            found = finished[number]
        else:
            if stop():
                break
            choice = propose(study.problem, best.choice, tried, study.generator(number))
            if choice is None:
                break
            found = study.trial("swap", lambda _, choice=choice: choice, note=describe(study.problem, best.choice, choice))  # type: ignore[misc]
        tried.add(found.choice)
        if compare(found.errors, best.errors).better:
            best = found
        on_trial(found)
    return best


def propose(
    problem: Problem, choice: tuple[int, ...], tried: set[tuple[int, ...]], generator: np.random.Generator
) -> tuple[int, ...] | None:
    """An untried neighbour within the limit: one group up, another down as far as needed; likelier the smaller its predicted loss."""
    room = problem.limit - problem.cost(choice)
    moves = [(g, j) for g, group in enumerate(problem.groups) for j in range(len(group.options)) if j != choice[g]]
    changes = [(g, j, *_change(problem, choice, g, j)) for g, j in moves]
    ups = sorted((change for change in changes if change[2] > 0), key=lambda change: change[3])[:_MOVES]
    downs = sorted((change for change in changes if change[2] < 0), key=lambda change: change[3])[:_MOVES]
    neighbours: list[tuple[float, tuple[tuple[int, int], ...]]] = [(error, ((g, j),)) for g, j, cost, error in ups if cost <= room]
    for g, j, cost, error in ups:
        neighbours += [(error + lost, ((g, j), (h, k))) for h, k, freed, lost in downs if h != g and cost + freed <= room]
    ordered = (_moved(choice, moves) for _, moves in sorted(neighbours))
    untried = list(islice((neighbour for neighbour in ordered if neighbour not in tried), _POOL))
    if not untried:
        return None
    rank = np.arange(len(untried))
    likely = np.exp(-rank / 12.0)
    return untried[int(generator.choice(len(untried), p=likely / likely.sum()))]


def describe(problem: Problem, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """What changes, for people: "conv1 int8 -> int4, linear int4 -> int8"."""
    old, new = problem.schemes(before), problem.schemes(after)
    return ", ".join(f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name])


def _change(problem: Problem, choice: tuple[int, ...], g: int, j: int) -> tuple[int, float]:
    now, then = problem.groups[g].options[choice[g]], problem.groups[g].options[j]
    return then.cost - now.cost, then.error - now.error


def _moved(choice: tuple[int, ...], moves: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    changed = list(choice)
    for g, j in moves:
        changed[g] = j
    return tuple(changed)
