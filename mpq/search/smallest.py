"""The smallest plan whose held-out error stays under a limit. No torch.

The exact solver is asked for the smallest size whose predicted error, times a factor, is within the limit; that plan is measured, the
factor becomes measured over predicted, and so on until size and error agree. The held-out samples steer here: the last plan's own
held-out figure is therefore slightly optimistic, and `mpq eval` on other data is the judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpq.budget import Budget
from mpq.config import SearchSettings, settings_from
from mpq.errors import BudgetError
from mpq.records.sensitivity import Sensitivity
from mpq.search.exact import solve
from mpq.search.problem import Group, Problem
from mpq.search.run import Measurer, SearchResult, groups_for, search
from mpq.search.stages import Progress

_ROUNDS = 8
_CLOSE = 0.97  # of the limit: near enough to stop


def search_smallest(
    table: Sensitivity,
    max_error: float,
    *,
    measurer: Measurer,
    settings: SearchSettings | None = None,
    on_progress: Progress | None = None,
    **choices: Any,
) -> SearchResult:
    """The smallest plan with a held-out error of at most `max_error`, in the table's metric.

    Args:
        table: a complete table.
        max_error: the limit.
        measurer: measures plans on the real model.
        settings: the choices as one object; without it
        **choices: its fields one by one.
        on_progress: told after each measured plan.

    Raises:
        BudgetError: if even the largest plan has a larger error.
    """
    chosen = settings or settings_from(SearchSettings, choices)
    groups = groups_for(table, chosen, scope="layers")
    factor, best = 1.0, None
    tried: set[int] = set()
    for _ in range(_ROUNDS):
        limit = _smallest_limit(groups, max_error / factor)
        if limit in tried:
            break
        tried.add(limit)
        result = search(table, Budget(f"{limit}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
        error, predicted = result.plan.evidence["measured"]["held_out"], result.plan.evidence["predicted"]
        if error is None:
            break
        if error <= max_error and (best is None or result.plan.size.layer_bytes < best.plan.size.layer_bytes):
            best = result
        if _CLOSE * max_error <= error <= max_error or predicted <= 0 or error <= 0:
            break
        factor = error / predicted
    if best is None:
        largest = Problem(groups, 0).largest
        best = search(table, Budget(f"{largest}B"), measurer=measurer, settings=chosen, on_progress=on_progress)
        error = best.plan.evidence["measured"]["held_out"]
        if error is None or error > max_error:
            raise BudgetError(f"no plan has a held-out error of at most {max_error:g}: the largest one has {error}; add finer candidates")
    return best


def _smallest_limit(groups: Sequence[Group], error: float) -> int:
    """The fewest bytes whose exact solution is predicted to stay within `error`; the largest plan's if none does."""
    costs = [[option.cost for option in group.options] for group in groups]
    errors = [[option.error for option in group.options] for group in groups]
    problem = Problem(tuple(groups), 0)
    low, high = problem.smallest, problem.largest
    while low < high:
        middle = (low + high) // 2
        solution = solve(costs, errors, middle)
        if solution is not None and solution.error <= error and math.isfinite(solution.error):
            high = middle
        else:
            low = middle + 1
    return low
