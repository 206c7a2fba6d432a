"""Says what candidates that were not measured would give at a plan's size, and how to ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpq.budget import Budget

if TYPE_CHECKING:
    from mpq.config import SearchSettings
    from mpq.records.sensitivity import Sensitivity
    from mpq.search.richer import Richer
    from mpq.search.run import SearchResult

_COSTS = {"fine": "slower once packed, few exports take it", "coded": "smaller in files alone"}


def richer_candidates(result: SearchResult, table: Sensitivity, settings: SearchSettings) -> list[Richer]:
    """The sets of candidates that would win clearly at the size of a plan, by an estimate; best first."""
    from mpq.analyze.candidates import candidates_for, expand
    from mpq.search.richer import richer

    def sixteen(_: object) -> str:
        return "fp16"  # none of the sets has 16 bits

    budget = result.plan.budget or Budget(f"{result.plan.size.layer_bytes}B")
    offers = {name: {layer.name: candidates_for(layer, expand([name]), sixteen) for layer in table.layers} for name in _COSTS}
    return richer(table, budget, settings, offers)


def richer_lines(found: Sequence[Richer]) -> list[str]:
    """What they would give, and how to ask for them; nothing if none would win."""
    told = ", ".join(f"{each.ratio:.2g} times with {each.name} ({_COSTS[each.name]})" for each in found)
    how = "estimated without the model; to measure one, add it to mpq analyze --candidates"
    return [f"richer candidates at this size: predicted error {told}", how] if found else []
