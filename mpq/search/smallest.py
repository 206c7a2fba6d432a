"""The smallest plan within limits of quality, and the best plan of a budget that keeps them too. No torch.

The exact solver is asked for the smallest size whose predicted error, times a factor, is within the limit; that plan is measured and the
factor becomes loss over prediction. Sizes that were too small and sizes that were enough enclose the answer; a proposal outside of them
gives way to their geometric mean. With several limits, the one that a plan exceeds most, or keeps most narrowly, steers. Of the plans that
seemed small enough, the smallest one that keeps every limit on the samples that decide is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from mpq.budget import Budget
from mpq.choices import SearchChoices
from mpq.config import SearchSettings, chosen_settings
from mpq.errors import BudgetError
from mpq.records.sensitivity import Sensitivity
from mpq.search.constraints import groups_for
from mpq.search.costs import cost_limits
from mpq.search.measurers import Measurer
from mpq.search.problem import Problem
from mpq.search.quality import QualityLimit
from mpq.search.run import SearchResult, search
from mpq.search.stages.schedule import Progress

_ROUNDS = 8
_CLOSE = 0.97  # of the limit: near enough to stop
_NEAR = 0.005  # of the size: sizes this near to each other are not told apart


def search_smallest(
    table: Sensitivity,
    limits: Sequence[QualityLimit],
    *,
    measurer: Measurer,
    settings: SearchSettings | None = None,
    on_progress: Progress | None = None,
    **choices: Unpack[SearchChoices],
) -> SearchResult:
    """The smallest plan found that keeps all limits, and the costs and memory of the settings.

    Args:
        table: a complete table.
        limits: one or more.
        measurer: measures plans on the real model.
        settings: the choices as one object, instead of
        **choices: its fields one by one.
        on_progress: called after each measured plan.

    Raises:
        BudgetError: if even the largest plan exceeds a limit.
    """
    chosen = chosen_settings(SearchSettings, settings, choices)
    groups = groups_for(table, chosen, scope="layers")
    whole = Problem(groups, 0, cost_limits(table, groups, chosen.costs, chosen.memory))
    too_small, enough = _smallest_limit(whole, math.inf) - 1, whole.largest
    passed: list[tuple[int, SearchResult, list[float]]] = []
    size = _smallest_limit(whole, min(limit.most for limit in limits))
    for _ in range(_ROUNDS):
        result = search(table, Budget(f"{size}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
        values = [limit.loss(result) for limit in limits]
        value, most = max(((value, limit.most) for value, limit in zip(values, limits, strict=True)), key=_tightness)
        if value <= most:
            passed.append((result.plan.size.layer_bytes, result, values))
            enough = min(size, result.plan.size.layer_bytes)
        else:
            too_small = size
        if (_CLOSE * most <= value <= most) or enough - too_small <= max(1, _NEAR * enough):
            break
        predicted = float(result.plan.evidence["predicted"])
        usable = predicted > 0 and value > 0 and math.isfinite(value)
        size = _smallest_limit(whole, most * predicted / value) if usable else too_small
        if not too_small < size < enough:
            size = max(too_small + 1, math.isqrt(too_small * enough))
    for _, result, values in sorted(passed, key=lambda each: each[0]):
        decided = [value if limit.judge is None else limit.judge(result) for limit, value in zip(limits, values, strict=True)]
        if all(value <= limit.most for limit, value in zip(limits, decided, strict=True)):
            return _told(result, limits, decided)
    result = search(table, Budget(f"{whole.largest}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
    return _kept(result, limits, "no plan has a {name} of at most {most:g}: the largest one has {value:.4g}; add finer candidates")


def search_within(
    table: Sensitivity,
    budget: Budget,
    limits: Sequence[QualityLimit],
    *,
    measurer: Measurer,
    settings: SearchSettings,
    on_progress: Progress | None = None,
) -> SearchResult:
    """The best plan found for a budget, if it keeps all limits of quality too.

    Raises:
        BudgetError: if no plan meets the budget, or the best one found exceeds a limit.
    """
    result = search(table, budget, measurer=measurer, settings=settings, on_progress=on_progress)
    return _kept(
        result,
        limits,
        f"no plan was found with a budget of {budget} and a {{name}} of at most {{most:g}}: the best one has {{value:.4g}}; "
        "raise one of the two, or add finer candidates",
    )


def _kept(result: SearchResult, limits: Sequence[QualityLimit], refusal: str) -> SearchResult:
    """The result, if it keeps all limits on the samples that decide."""
    decided = [limit.decided(result) for limit in limits]
    for limit, value in zip(limits, decided, strict=True):
        if not value <= limit.most:
            raise BudgetError(refusal.format(name=limit.name, most=limit.most, value=value))
    return _told(result, limits, decided)


def _tightness(pair: tuple[float, float]) -> float:
    """How much of a limit is used: a value against the largest one allowed."""
    value, most = pair
    if math.isnan(value):
        return math.inf
    return value / most if most > 0 else math.inf if value > most else 0.0


def _told(result: SearchResult, limits: Sequence[QualityLimit], values: Sequence[float]) -> SearchResult:
    """The result with what was asked of it in its plan's evidence: one limit, or a list of several."""
    rows = [limit.row(value) for limit, value in zip(limits, values, strict=True)]
    if not rows:
        return result
    evidence = result.plan.evidence | {"asked": rows[0] if len(rows) == 1 else rows}
    return replace(result, plan=replace(result.plan, evidence=evidence))


def _smallest_limit(whole: Problem, error: float) -> int:
    """The fewest bytes whose exact solution keeps the other limits and is predicted to stay within `error`; the largest plan's if none."""
    low, high = whole.smallest, whole.largest
    while low < high:
        middle = (low + high) // 2
        solution = replace(whole, limit=middle).solve()
        if solution is not None and solution.error <= error:
            high = middle
        else:
            low = middle + 1
    return low
