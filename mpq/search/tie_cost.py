"""What ties cost: the least predicted error with them, beside that without. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.records.sensitivity import Sensitivity
from mpq.search.constraints import groups_for
from mpq.search.run import search
from mpq.shown import figure


@dataclass(frozen=True)
class TieCost:
    """The price of ties at one budget, by the table alone.

    Args:
        groups: number of groups of layers that share one scheme.
        tied: least predicted error with the ties.
        free: least predicted error without them, all else equal.
    """

    groups: int
    tied: float
    free: float

    def __str__(self) -> str:
        more = f", {self.tied / self.free - 1:.1%} more" if self.free > 0 else ""
        groups = f"{self.groups} group{'' if self.groups == 1 else 's'} of layers"
        return f"ties: {groups} share one scheme; least predicted error {figure(self.tied)}, without ties {figure(self.free)}{more}"


def tie_cost(table: Sensitivity, budget: Budget, settings: SearchSettings) -> TieCost | None:
    """What the ties of a search cost at a budget; None if none of its layers are tied.

    Raises:
        BudgetError: if no plan meets the budget.
        UsageError: if ties and pins cannot be met.
    """
    groups = sum(len(group.layers) > 1 for group in groups_for(table, settings, scope=budget.scope))
    if not groups:
        return None
    alone = replace(settings, trials=0, start=None, storage=None)
    tied, free = (float(search(table, budget, settings=each).plan.evidence["predicted"]) for each in (alone, replace(alone, ties=())))
    return TieCost(groups, tied, free)
