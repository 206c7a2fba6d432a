"""The allocation problem: choose one option for each group of tied layers, within a limit of bytes. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity, scheme_cost
from mpq.search.solvers.knapsack import Solution, solve


@dataclass(frozen=True)
class Option:
    """One choice of a group.

    Args:
        schemes: scheme by layer name; layers of a group may differ in group size only if a size does not divide their rows.
        cost: bytes.
        error: predicted error, in the metric's unit.
    """

    schemes: dict[str, Scheme]
    cost: int
    error: float


@dataclass(frozen=True)
class Group:
    """Layers that share one option; most groups are a single layer."""

    layers: tuple[Layer, ...]
    options: tuple[Option, ...]

    @property
    def name(self) -> str:
        """The layer's name, or all names joined with "+"."""
        return "+".join(layer.name for layer in self.layers)


@dataclass(frozen=True)
class Limit:
    """A limit in addition to that of bytes.

    Args:
        name: the name of the cost, for people, for example "latency_ms".
        most: limit for the total.
        costs: the cost by group and option.
        constant: additional cost of every choice.
    """

    name: str
    most: float
    costs: tuple[tuple[float, ...], ...]
    constant: float = 0.0

    def total(self, choice: Sequence[int]) -> float:
        """The cost of a choice."""
        return self.constant + math.fsum(costs[index] for costs, index in zip(self.costs, choice, strict=True))


@dataclass(frozen=True)
class Problem:
    """Choose one option per group: least total error, with total cost within `limit` (bytes) and all other limits (`beside`)."""

    groups: tuple[Group, ...]
    limit: int
    beside: tuple[Limit, ...] = ()

    def schemes(self, choice: Sequence[int]) -> dict[str, Scheme]:
        """Scheme by layer name for a choice of one option per group."""
        found: dict[str, Scheme] = {}
        for group, index in zip(self.groups, choice, strict=True):
            found |= group.options[index].schemes
        return found

    def cost(self, choice: Sequence[int]) -> int:
        """Bytes of a choice."""
        return sum(group.options[index].cost for group, index in zip(self.groups, choice, strict=True))

    def error(self, choice: Sequence[int]) -> float:
        """Sum of the predicted errors of a choice."""
        return math.fsum(group.options[index].error for group, index in zip(self.groups, choice, strict=True))

    def fits(self, choice: Sequence[int]) -> bool:
        """Whether a choice is within all limits."""
        return self.cost(choice) <= self.limit and all(limit.total(choice) <= limit.most for limit in self.beside)

    def solve(self, errors: Sequence[Sequence[float]] | None = None) -> Solution | None:
        """The best choice within the limits, with its proven bound; None if there is none.

        Args:
            errors: by group and option, instead of the options' own.
        """
        costs = [[option.cost for option in group.options] for group in self.groups]
        wanted = [[option.error for option in group.options] for group in self.groups] if errors is None else errors
        if not self.beside:
            return solve(costs, wanted, self.limit)
        from mpq.search.solvers.several_limits import solve_several  # late: its solver is slow to import

        return solve_several(
            [costs, *(limit.costs for limit in self.beside)], wanted, [self.limit, *(limit.most - limit.constant for limit in self.beside)]
        )

    @property
    def smallest(self) -> int:
        """Bytes of the smallest choice."""
        return sum(min(option.cost for option in group.options) for group in self.groups)

    @property
    def largest(self) -> int:
        """Bytes of the largest choice."""
        return sum(max(option.cost for option in group.options) for group in self.groups)


def build_groups(
    table: Sensitivity,
    *,
    scope: str = "layers",
    pins: Mapping[str, Scheme] | None = None,
    ties: Iterable[Sequence[str]] = (),
) -> tuple[Group, ...]:
    """The groups of a table.

    Args:
        table: a complete sensitivity table.
        scope: what a cost counts, "layers" or "file".
        pins: layers with a fixed scheme, which must have been measured.
        ties: names of layers that share one scheme.

    Raises:
        UsageError: if a layer has no measured option left, or tied layers have no scheme in common.
    """
    pinned = dict(pins or {})
    groups: list[Group] = []
    tied = {name: tuple(names) for names in ties for name in names}
    done: set[str] = set()
    by_name = {layer.name: layer for layer in table.layers}
    for layer in table.layers:
        if layer.name in done:
            continue
        members = [by_name[name] for name in tied.get(layer.name, (layer.name,))]
        done |= {member.name for member in members}
        groups.append(Group(tuple(members), _options(table, members, scope, pinned)))
    return tuple(groups)


def _options(table: Sensitivity, members: Sequence[Layer], scope: str, pins: Mapping[str, Scheme]) -> tuple[Option, ...]:
    families: dict[tuple[str, bool, int | None, bool], Option] = {}
    lead = members[0]
    for scheme in _allowed(table, lead, pins):
        schemes = {lead.name: scheme} | {other.name: match for other in members[1:] for match in _matches(table, other, scheme, pins)}
        if len(schemes) < len(members):
            continue
        error = math.fsum(table.mean(name, each) for name, each in schemes.items())
        cost = sum(scheme_cost(layer, schemes[layer.name], scope=scope) for layer in members)
        if math.isfinite(error):
            families[scheme.format, scheme.symmetric, scheme.group_size, scheme.small_scales] = Option(schemes, cost, error)
    if not families:
        names = ", ".join(layer.name for layer in members)
        raise UsageError(f"no measured scheme works for {names}{' together' if len(members) > 1 else ''}: analyze more candidates")
    return tuple(sorted(families.values(), key=lambda option: (option.cost, option.error)))


def _allowed(table: Sensitivity, layer: Layer, pins: Mapping[str, Scheme]) -> list[Scheme]:
    measured = [scheme for scheme in table.header.candidates[layer.name] if (layer.name, scheme) in table.errors]
    if layer.name not in pins:
        return measured
    if pins[layer.name] not in measured:
        known = ", ".join(str(scheme) for scheme in measured)
        raise UsageError(f"layer '{layer.name}' is pinned to {pins[layer.name]}, which was not measured: choose from {known}")
    return [pins[layer.name]]


def _matches(table: Sensitivity, layer: Layer, scheme: Scheme, pins: Mapping[str, Scheme]) -> list[Scheme]:
    return [scheme] if scheme in _allowed(table, layer, pins) else []
