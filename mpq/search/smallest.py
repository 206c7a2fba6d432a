"""The smallest plan whose loss stays under a limit. No torch.

The loss is the plan's held-out error, or what the user's own metric loses. The exact solver is asked for the smallest size whose predicted
error, times a factor, is within the limit; that plan is measured and the factor becomes loss over prediction. Sizes that were
too small and sizes that were enough enclose the answer; a proposal outside of them gives way to their geometric mean. What steers
is slightly optimistic for the plan that it led to. So a judge may be given, the same loss on samples that did not steer: of the plans
that seemed small enough, the smallest one that keeps the limit there is taken. Without one, other data must judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpq.budget import Budget
from mpq.config import SearchSettings, settings_from
from mpq.errors import BudgetError
from mpq.records.sensitivity import Sensitivity
from mpq.search.constraints import groups_for
from mpq.search.final_decision import rounded
from mpq.search.measurers import Measurer
from mpq.search.problem import Group, Problem
from mpq.search.run import SearchResult, search
from mpq.search.stages.schedule import Progress

_ROUNDS = 8
_CLOSE = 0.97  # of the limit: near enough to stop
_NEAR = 0.005  # of the size: sizes this near to each other are not told apart
_FEWEST = 8  # figures that are split
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
Loss = Callable[[SearchResult], float]


def search_smallest(
    table: Sensitivity,
    most: float,
    *,
    measurer: Measurer,
    loss: Loss | None = None,
    judge: Loss | None = None,
    name: str = "held-out error",
    settings: SearchSettings | None = None,
    on_progress: Progress | None = None,
    **choices: Any,
) -> SearchResult:
    """The smallest plan found with a loss of at most `most`.

    Args:
        table: a complete table.
        most: the limit.
        measurer: measures plans on the real model.
        loss: of a result; by default the held-out error of its plan, in the table's metric.
        judge: the same loss on samples that `loss` does not see, which decides; None where there are none.
        name: of the loss, for people.
        settings: the choices as one object; without it
        **choices: its fields one by one.
        on_progress: told after each measured plan.

    Raises:
        BudgetError: if even the largest plan has a larger loss.
    """
    chosen = settings or settings_from(SearchSettings, choices)
    groups = groups_for(table, chosen, scope="layers")
    whole = Problem(groups, 0)
    judged = loss or _held_out
    too_small, enough = whole.smallest - 1, whole.largest
    passed: list[tuple[int, SearchResult, float]] = []
    limit = _smallest_limit(groups, most)
    for _ in range(_ROUNDS):
        result = search(table, Budget(f"{limit}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
        value = judged(result)
        if value <= most:
            passed.append((result.plan.size.layer_bytes, result, value))
            enough = min(limit, result.plan.size.layer_bytes)
        else:
            too_small = limit
        if (_CLOSE * most <= value <= most) or enough - too_small <= max(1, _NEAR * enough):
            break
        predicted = float(result.plan.evidence["predicted"])
        usable = predicted > 0 and value > 0 and math.isfinite(value)
        limit = _smallest_limit(groups, most * predicted / value) if usable else too_small
        if not too_small < limit < enough:
            limit = max(too_small + 1, math.isqrt(too_small * enough))
    for _, result, value in sorted(passed, key=lambda each: each[0]):
        decided = value if judge is None else judge(result)
        if decided <= most:
            return _told(result, name, decided, most)
    result = search(table, Budget(f"{whole.largest}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
    value = (judge or judged)(result)
    if not value <= most:
        raise BudgetError(f"no plan has a {name} of at most {most:g}: the largest one has {value:.4g}; add finer candidates")
    return _told(result, name, value, most)


def halves(count: int, *, seed: int) -> tuple[Integers, Integers | None]:
    """Positions of the figures that steer and of those that decide, a random half each; all steer and none decide if there are few.

    Args:
        count: of figures.
        seed: of the split.
    """
    if count < _FEWEST:
        return np.arange(count), None
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _held_out(result: SearchResult) -> float:
    value = result.plan.evidence["measured"]["held_out"]
    return math.inf if value is None else float(value)


def _told(result: SearchResult, name: str, value: float, most: float) -> SearchResult:
    """The result with what was asked of it in its plan's evidence."""
    evidence = result.plan.evidence | {"asked": {"name": name, "value": rounded(value), "most": most}}
    return replace(result, plan=replace(result.plan, evidence=evidence))


def _smallest_limit(groups: Sequence[Group], error: float) -> int:
    """The fewest bytes whose exact solution is predicted to stay within `error`; the largest plan's if none does."""
    whole = Problem(tuple(groups), 0)
    low, high = whole.smallest, whole.largest
    while low < high:
        middle = (low + high) // 2
        solution = replace(whole, limit=middle).solve()
        if solution is not None and solution.error <= error and math.isfinite(solution.error):
            high = middle
        else:
            low = middle + 1
    return low
