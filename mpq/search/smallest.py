"""The smallest plan within quality limits, and the best plan within both a budget and quality limits. No torch.

The exact solver finds the smallest size whose predicted error, times a factor, is within the limit. That plan is measured, and the factor
becomes the measured loss divided by the prediction. Sizes that were too small and sizes that were large enough bracket the answer; a
proposal outside the bracket is replaced by the geometric mean of its ends. With several limits, the tightest one guides the search. Among
the plans that met the limits, the result is the smallest one that meets every limit on the deciding samples.
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
from mpq.formats.activations import OFF
from mpq.records.sensitivity import Sensitivity
from mpq.search.activations import most_groups
from mpq.search.constraints import groups_for
from mpq.search.costs import cost_limits
from mpq.search.measurers import Measurer
from mpq.search.problem import Problem
from mpq.search.quality import QualityLimit
from mpq.search.run import SearchResult, search
from mpq.search.stages.schedule import Progress

_ROUNDS = 8
_CLOSE = 0.97  # share of the limit: close enough to stop
_NEAR = 0.005  # share of the size: closer sizes count as equal


def search_smallest(
    table: Sensitivity,
    limits: Sequence[QualityLimit],
    *,
    measurer: Measurer,
    settings: SearchSettings | None = None,
    on_progress: Progress | None = None,
    **choices: Unpack[SearchChoices],
) -> SearchResult:
    """Find the smallest plan within all limits, including the costs and memory of the settings.

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
    asked = chosen_settings(SearchSettings, settings, choices)
    chosen = replace(asked, activations=OFF)  # groups are added at the end, as many as the limits allow
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
            return _with_groups(_told(result, limits, decided), table, asked, limits, measurer)
    result = search(table, Budget(f"{whole.largest}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
    kept = _kept(result, limits, "no plan has a {name} of at most {most:g}: the largest one has {value:.4g}; add candidates with more bits")
    return _with_groups(kept, table, asked, limits, measurer)


def search_within(
    table: Sensitivity,
    budget: Budget,
    limits: Sequence[QualityLimit],
    *,
    measurer: Measurer,
    settings: SearchSettings,
    on_progress: Progress | None = None,
) -> SearchResult:
    """Find the best plan for a budget, which must also be within all quality limits.

    Raises:
        BudgetError: if no plan meets the budget, or the best one found exceeds a limit.
    """
    bare = replace(settings, activations=OFF)
    result = search(table, budget, measurer=measurer, settings=bare, on_progress=on_progress)
    kept = _kept(
        result,
        limits,
        f"no plan was found with a budget of {budget} and a {{name}} of at most {{most:g}}: the best one has {{value:.4g}}; "
        "raise one of the two, or add finer candidates",
    )
    return _with_groups(kept, table, settings, limits, measurer)


def _with_groups(
    result: SearchResult, table: Sensitivity, settings: SearchSettings, limits: Sequence[QualityLimit], measurer: Measurer
) -> SearchResult:
    """The result with as many integer tensors as the limits allow."""

    def keeps(tried: SearchResult) -> bool:
        return all(limit.decided(tried) <= limit.most for limit in limits)

    found = most_groups(result, table, settings.activations, measurer, keeps)
    return found if found is result else _told(found, limits, [limit.decided(found) for limit in limits])


def _kept(result: SearchResult, limits: Sequence[QualityLimit], refusal: str) -> SearchResult:
    """The result, if it is within all limits on the deciding samples."""
    decided = [limit.decided(result) for limit in limits]
    for limit, value in zip(limits, decided, strict=True):
        if not value <= limit.most:
            raise BudgetError(refusal.format(name=limit.name, most=limit.most, value=value))
    return _told(result, limits, decided)


def _tightness(pair: tuple[float, float]) -> float:
    """How much of a limit is used: the value divided by the largest one allowed."""
    value, most = pair
    if math.isnan(value):
        return math.inf
    return value / most if most > 0 else math.inf if value > most else 0.0


def _told(result: SearchResult, limits: Sequence[QualityLimit], values: Sequence[float]) -> SearchResult:
    """The result with its limits in the plan's evidence: one limit, or a list of several."""
    rows = [limit.row(value) for limit, value in zip(limits, values, strict=True)]
    if not rows:
        return result
    evidence = result.plan.evidence | {"asked": rows[0] if len(rows) == 1 else rows}
    return replace(result, plan=replace(result.plan, evidence=evidence))


def _smallest_limit(whole: Problem, error: float) -> int:
    """The fewest bytes whose exact solution is within the other limits and predicted to be within `error`; the largest plan's if none."""
    low, high = whole.smallest, whole.largest
    while low < high:
        middle = (low + high) // 2
        solution = replace(whole, limit=middle).solve()
        if solution is not None and solution.error <= error:
            high = middle
        else:
            low = middle + 1
    return low
