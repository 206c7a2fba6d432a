"""The frontier of error against time: the lower convex hull of all plans, for the times of one profile. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum
from pathlib import Path

from mpq.formats.scheme import Scheme
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.records.time_frontier import Reached, TimeFrontier
from mpq.search.costs import profile_facts, read_costs
from mpq.search.problem import build_groups
from mpq.search.solvers.relaxation import hull_of

_STEPS = 1e6  # of a millisecond: the solver counts whole ones


def time_frontier(table: Sensitivity, path: Path, plan: Plan | None = None) -> TimeFrontier | None:
    """The frontier under a plan's pins and ties, if one is given; None if the file is no profile of this model with all its candidates.

    Raises:
        FormatError: if the file is damaged.
    """
    facts = profile_facts(path)
    if facts is None or facts.model != table.header.model.get("sha256"):
        return None
    _, times = read_costs(path)
    pins = {} if plan is None else {name: plan.layers[name] for name in plan.pinned}
    groups = build_groups(table, pins=pins, ties=() if plan is None else plan.ties)
    if any(pair not in times for group in groups for option in group.options for pair in option.schemes.items()):
        return None
    costs = [[round(_STEPS * fsum(times[pair] for pair in option.schemes.items())) for option in group.options] for group in groups]
    hull = hull_of(costs, [[option.error for option in group.options] for group in groups])
    corners = tuple(Reached(facts.rest_ms + each.cost / _STEPS, each.error) for each in hull)
    return TimeFrontier(path.name, facts, times, corners, None if plan is None else _reached(table, plan, times, facts.rest_ms))


def _reached(table: Sensitivity, plan: Plan, times: Mapping[tuple[str, Scheme], float], rest: float) -> Reached | None:
    pairs = list(plan.layers.items())
    if any(pair not in times or pair not in table.errors for pair in pairs):
        return None
    return Reached(rest + fsum(times[pair] for pair in pairs), fsum(table.mean(*pair) for pair in pairs))
