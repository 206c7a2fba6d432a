"""Why a layer has its scheme: what the alternatives cost, and what would have to change. No torch.

At the size of a plan a byte has a price: the error that the last bytes save (the multiplier of the linear relaxation). A scheme is right
for a layer when no other one has a smaller error plus price times bytes.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import numpy as np

from mpq.errors import PatternError
from mpq.records.frontier import Frontier, Point
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.schemes import Scheme
from mpq.search.frontier import frontier
from mpq.search.hull import relax
from mpq.search.problem import Group, Option, build_groups


@dataclass(frozen=True)
class Alternative:
    """A scheme that the layer could take.

    Args:
        scheme: of the layer; layers tied to it take their own counterpart.
        chosen: whether the plan has it.
        bytes: of the layer and those tied to it.
        error: predicted error of the same.
        stderr: its standard error; NaN for one sample and for tied layers.
        loss: what the whole plan loses if this scheme is taken and the bytes are traded at their price; 0 for the chosen one, negative
            when it would be better.
        needed: the error below which it would be taken at this size; None for the chosen one, and when no error is small enough.
    """

    scheme: Scheme
    chosen: bool
    bytes: int
    error: float
    stderr: float
    loss: float
    needed: float | None


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
        smaller: where the scheme changes when the budget shrinks; None if it never does.
        larger: where it changes when the budget grows.
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


def explain(plan: Plan, layer: str, *, table: Sensitivity) -> Explanation:
    """Explain one layer of a plan with the table that it was solved from.

    Raises:
        PatternError: if the plan has no such layer; the message names the closest ones.
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
        alternatives=tuple(_alternatives(plan, layer, group, table, price)),
        smaller=_switch(plan, layer, reach, larger=False),
        larger=_switch(plan, layer, reach, larger=True),
    )


def _price(groups: tuple[Group, ...], limit: int) -> float:
    """Error per byte at a size, from the options on each group's lower envelope."""
    kept = [_falling(group) for group in groups]
    cost = [np.array([option.cost for option in options], dtype=np.int64) for options in kept]
    error = [np.array([option.error for option in options], dtype=np.float64) for options in kept]
    if sum(int(each[0]) for each in cost) > limit:
        return 0.0
    return relax(cost, error, limit).multiplier


def _falling(group: Group) -> list[Option]:
    kept: list[Option] = []
    for option in sorted(group.options, key=lambda o: (o.cost, o.error)):
        if not kept or option.error < kept[-1].error:
            kept.append(option)
    return kept


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


def _switch(plan: Plan, layer: str, reach: Frontier, *, larger: bool) -> Switch | None:
    own, size = plan.layers[layer], plan.size.layer_bytes
    beyond: list[Point] = [point for point in reach.points if (point.layer_bytes > size if larger else point.layer_bytes < size)]
    for point in beyond if larger else reversed(beyond):
        if point.schemes[layer] != own:
            return Switch(point.schemes[layer], point.effective_bits, point.layer_bytes)
    return None
