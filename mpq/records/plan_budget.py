"""Checks a plan against its own budget. No torch."""

from __future__ import annotations

from mpq.errors import ApplyError
from mpq.records.plan import Plan
from mpq.shown import bits_text


def check_plan_budget(plan: Plan) -> None:
    """Refuse a plan that is over its own budget; a plan without one passes.

    Raises:
        ApplyError: with its size, and by how much it exceeds the budget.
    """
    if plan.budget is None:
        return
    taken, limit, weights = plan.counted(plan.budget)
    if taken > limit:
        raise ApplyError(
            f"the plan takes {taken:,} bytes ({bits_text(8 * taken / weights)} bits per weight), {taken - limit:,} more than its budget "
            f"{plan.budget}: lower a layer, or raise the budget in the plan"
        )
