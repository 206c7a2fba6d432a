"""Whether limits can be met at all, and which of the user's options prevent it. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.errors import BudgetError
from mpq.records.sensitivity import Sensitivity
from mpq.search.byte_limit import ByteLimit
from mpq.search.constraints import groups_for
from mpq.search.problem import Problem
from mpq.shown import bits_text

_OPTIONS = {"pins": "--pin", "ties": "--tie (or --for)", "min_bits": "--min-bits", "candidates": "--candidates (or --for)"}
_FREE = SearchSettings()


def check_feasible(problem: Problem, table: Sensitivity, budget: Budget, limit: ByteLimit, settings: SearchSettings) -> None:
    """Refuse a limit that cannot be met even alone.

    Raises:
        BudgetError: with the smallest and the largest total of any plan, and the options that raise the smallest.
    """
    if problem.limit < problem.smallest:
        raise BudgetError(_over_budget(problem, table, budget, limit, settings))
    given = " and ".join(["these candidates", *(option for name, option in _OPTIONS.items() if getattr(settings, name))])
    for other in problem.beside:
        least, most = (other.constant + math.fsum(edge(costs) for costs in other.costs) for edge in (min, max))
        if other.most < least:
            raise BudgetError(f"{other.name} of {other.most:g} cannot be met: with {given} it is {least:.6g} to {most:.6g}")


def _over_budget(problem: Problem, table: Sensitivity, budget: Budget, limit: ByteLimit, settings: SearchSettings) -> str:
    low, high, constant = problem.smallest, problem.largest, limit.constant
    options, free = _raising(table, budget, settings)
    named = " and ".join(options)
    without = f"; without {named}, at least {_bits(free, limit)} ({free + constant:,} bytes)" if options else ""
    cause = " and ".join(options if options and problem.limit >= free else ["these candidates", *options])
    fixed = f", at least {constant:,} of them unquantized tensors, program and header" if constant else ""
    return (
        f"budget {budget} cannot be met: with {cause} a plan takes {_bits(low, limit)} to {_bits(high, limit)} bits per weight "
        f"({low + constant:,} to {high + constant:,} bytes{fixed}){without}"
    )


def _raising(table: Sensitivity, budget: Budget, settings: SearchSettings) -> tuple[Sequence[str], int]:
    """The options that raise the size of the smallest plan, and its size without them."""

    def smallest(names: Sequence[str]) -> int:
        kept = replace(_FREE, **{name: getattr(settings, name) for name in names})
        return Problem(groups_for(table, kept, scope=budget.scope), 0).smallest

    free = smallest(())
    return [option for name, option in _OPTIONS.items() if smallest([name]) > free], free


def _bits(cost: int, limit: ByteLimit) -> str:
    return bits_text((cost + limit.constant) * 8 / limit.weights)
