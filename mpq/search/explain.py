"""Explains why a layer has its scheme, what the alternatives cost, and what would have to change. No torch.

At the size of a plan, a byte has a price: the error that the last bytes save (the multiplier of the linear relaxation). A scheme is right
for a layer if no other one has a smaller sum of error and price times bytes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mpq.errors import PatternError
from mpq.formats.scheme import Scheme
from mpq.records.frontier import Frontier, Point
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.costs import MEMORY, costs_of
from mpq.search.frontier import frontier
from mpq.search.problem import Group, build_groups
from mpq.search.solvers.relaxation import relax, undominated


@dataclass(frozen=True)
class Alternative:
    """A scheme that the layer could use.

    Args:
        scheme: the layer's scheme; layers tied to it use the corresponding one.
        chosen: whether the plan has it.
        bytes: bytes of the layer and the layers tied to it.
        error: predicted error of the same layers.
        stderr: its standard error; NaN for one sample and for tied layers.
        loss: net loss of the whole plan if this scheme is used and the bytes are traded at their price; 0 for the chosen one, negative if
            it would be better.
        needed: the error below which it would be chosen at this size; None for the chosen one, or if no error is small enough.
        beside: other costs of the same layers, by name.
        over: names of the limits that the plan would exceed if only this scheme were changed.
    """

    scheme: Scheme
    chosen: bool
    bytes: int
    error: float
    stderr: float
    loss: float
    needed: float | None
    beside: dict[str, float] = field(default_factory=dict)
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Switch:
    """The nearest size at which the best plan gives the layer another scheme."""

    scheme: Scheme
    effective_bits: float
    layer_bytes: int


@dataclass(frozen=True)
class Explanation:
    """Why a layer has its scheme.

    Args:
        layer: its name.
        tied: names of layers that share its choice.
        pinned: whether the user fixed it.
        price: error that one more byte saves at the plan's size.
        alternatives: all measured schemes in order of size.
        smaller: where the scheme changes if the budget shrinks; None if it never does.
        larger: where the scheme changes if the budget grows.
    """

    layer: str
    tied: tuple[str, ...]
    pinned: bool
    price: float
    alternatives: tuple[Alternative, ...]
    smaller: Switch | None
    larger: Switch | None

    @property
    def chosen(self) -> Alternative | None:
        """The alternative that the plan has; None if it was not measured."""
        return next((each for each in self.alternatives if each.chosen), None)


def explain(plan: Plan, layer: str, *, table: Sensitivity, costs: Sequence[Path | str] = ()) -> Explanation:
    """Explain one layer of a plan, using the table that the plan was solved from.

    Args:
        plan: the plan.
        layer: its name.
        table: the analysis.
        costs: the search's cost files, for the costs of the alternatives.

    Raises:
        PatternError: if the plan has no such layer; the message names the closest ones.
        FormatError: if a cost file cannot be read.
        UsageError: if it lacks a scheme of the layer.
    """
    if layer not in plan.layers:
        close = difflib.get_close_matches(layer, plan.layers, n=3, cutoff=0.4)
        known = f"; did you mean {' or '.join(close)}?" if close else f": it has {len(plan.layers)}, for example {next(iter(plan.layers))}"
        raise PatternError(f"the plan has no layer '{layer}'{known}")
    free = [name for name in plan.pinned if name != layer]
    groups = build_groups(table, pins={name: plan.layers[name] for name in free}, ties=plan.ties)
    group = next(group for group in groups if any(member.name == layer for member in group.layers))
    price = _price(groups, plan.size.layer_bytes)
    reach = frontier(table, plan)
    return Explanation(
        layer=layer,
        tied=tuple(member.name for member in group.layers if member.name != layer),
        pinned=layer in plan.pinned,
        price=price,
        alternatives=tuple(_with_costs(_alternatives(plan, layer, group, table, price), plan, group, table, list(map(Path, costs)))),
        smaller=_switch(plan, layer, reach, larger=False),
        larger=_switch(plan, layer, reach, larger=True),
    )


def _price(groups: tuple[Group, ...], limit: int) -> float:
    """Error per byte at a size, from the options on each group's lower envelope."""
    kept = [[g.options[j] for j in undominated([o.cost for o in g.options], [o.error for o in g.options])] for g in groups]
    cost = [np.array([option.cost for option in options], dtype=np.int64) for options in kept]
    error = [np.array([option.error for option in options], dtype=np.float64) for options in kept]
    if sum(int(each[0]) for each in cost) > limit:
        return 0.0
    return relax(cost, error, limit).multiplier


def _alternatives(plan: Plan, layer: str, group: Group, table: Sensitivity, price: float) -> list[Alternative]:
    taken = next((o for o in group.options if o.schemes[layer] == plan.layers[layer]), None)
    found = []
    for option in group.options:
        scheme = option.schemes[layer]
        stderr = table.stderr(layer, scheme) if len(group.layers) == 1 else math.nan
        loss, needed = 0.0, None
        if taken is not None and option is not taken:
            paid = price * (option.cost - taken.cost)
            loss = option.error - taken.error + paid
            needed = taken.error - paid if taken.error - paid > 0 else None
        found.append(Alternative(scheme, option is taken, option.cost, option.error, stderr, loss, needed))
    return found


def _with_costs(
    alternatives: Sequence[Alternative], plan: Plan, group: Group, table: Sensitivity, files: Sequence[Path]
) -> Iterator[Alternative]:
    limits = plan.evidence.get("costs", {})
    known = costs_of(group, table, files, memory=MEMORY in limits)
    taken = next((number for number, each in enumerate(alternatives) if each.chosen), None)
    for number, each in enumerate(alternatives):
        beside = {name: row[number] for name, row in known.items()}
        more = {name: 0.0 if taken is None else row[number] - row[taken] for name, row in known.items()}
        over = [name for name in known if name in limits and limits[name]["total"] + more[name] > limits[name]["most"]]
        yield replace(each, beside=beside, over=tuple(over))


def _switch(plan: Plan, layer: str, reach: Frontier, *, larger: bool) -> Switch | None:
    own, size = plan.layers[layer], plan.size.layer_bytes
    beyond: list[Point] = [point for point in reach.points if (point.layer_bytes > size if larger else point.layer_bytes < size)]
    for point in beyond if larger else reversed(beyond):
        if point.schemes[layer] != own:
            return Switch(point.schemes[layer], point.effective_bits, point.layer_bytes)
    return None
