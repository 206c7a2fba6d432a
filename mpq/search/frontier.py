"""The frontier: the table solved exactly for many sizes at once. No model is needed, and no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mpq.formats.scheme import Scheme
from mpq.records.artifact_layout import file_bytes
from mpq.records.frontier import Frontier, Margin, Point
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity, scheme_cost
from mpq.search.problem import Problem, build_groups
from mpq.search.stages.uniform import uniform_plans

POINTS = 96
_SHARE = 0.01


def frontier(table: Sensitivity, plan: Plan | None = None, *, count: int = POINTS) -> Frontier:
    """The frontier of a complete table, under the plan's pins and ties if one is given.

    Args:
        table: the sensitivities.
        plan: a plan for the same model; it is placed on the frontier, and one percent of its bytes is moved both ways.
        count: sizes to solve for; equal ratios from the smallest to the largest plan.

    Raises:
        UsageError: if pins or ties of the plan cannot be met by the table.
    """
    solver = _Solver(table, plan)
    low, high = solver.problem.smallest, solver.problem.largest
    ratio = high / low
    limits = sorted({round(low * ratio ** (step / (count - 1))) for step in range(count)} | {low, high})
    found = [point for limit in limits if (point := solver.best(limit)) is not None]
    uniform = tuple(solver.point(each.choice, name=each.name) for each in uniform_plans(solver.problem, table, solver.pins))
    chosen = solver.chosen()
    if plan is None:
        return Frontier(_falling(found), uniform)
    size = plan.size.layer_bytes
    step = max(1, round(size * _SHARE))
    before = solver.best(size)
    more, less = solver.best(size + step), solver.best(size - step)
    return Frontier(
        _falling([*found, *([before] if before else [])]),
        uniform,
        chosen,
        Margin(before, more) if before and more and more.predicted < before.predicted else None,
        Margin(before, less) if before and less and less.schemes != before.schemes else None,
    )


class _Solver:
    """One problem, solved for any limit."""

    def __init__(self, table: Sensitivity, plan: Plan | None) -> None:
        self.table, self.plan = table, plan
        self.pins: Mapping[str, Scheme] = {} if plan is None else {name: plan.layers[name] for name in plan.pinned}
        groups = build_groups(table, pins=self.pins, ties=() if plan is None else plan.ties)
        self.problem = Problem(groups, Problem(groups, 0).largest)
        self._known: dict[tuple[str, Scheme, str], int] = {}

    def best(self, limit: int) -> Point | None:
        solution = replace(self.problem, limit=limit).solve()
        return None if solution is None else self.point(solution.choice, gap=solution.gap)

    def point(self, choice: Sequence[int], *, name: str = "", gap: float = 0.0) -> Point:
        return self._placed(self.problem.schemes(choice), self.problem.error(choice), name=name, gap=gap)

    def chosen(self) -> Point | None:
        """The plan's own point; None without a plan, or when one of its schemes was not measured."""
        if self.plan is None or any((name, scheme) not in self.table.errors for name, scheme in self.plan.layers.items()):
            return None
        predicted = math.fsum(self.table.mean(name, scheme) for name, scheme in self.plan.layers.items())
        return self._placed(self.plan.layers, predicted, name="this plan", gap=0.0)

    def _placed(self, schemes: Mapping[str, Scheme], predicted: float, *, name: str, gap: float) -> Point:
        rest, layers = self.table.header.rest, self.table.layers
        ordered = {layer.name: schemes[layer.name] for layer in layers}
        data = sum(self._cost(layer, ordered[layer.name], "layers") for layer in layers)
        header = sum(self._cost(layer, ordered[layer.name], "file") for layer in layers) - data
        total = file_bytes(header_bytes=rest.header_bytes + header, data_bytes=rest.data_bytes + data)
        return Point(name, ordered, 8 * data / sum(layer.weights for layer in layers), data, total, predicted, gap)

    def _cost(self, layer: Layer, scheme: Scheme, scope: str) -> int:
        """`scheme_cost`, remembered: every point asks for every layer."""
        key = (layer.name, scheme, scope)
        if key not in self._known:
            self._known[key] = scheme_cost(layer, scheme, scope=scope)
        return self._known[key]


def _falling(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points in order of size, each with a smaller error than all before it."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.layer_bytes, p.predicted)):
        if not kept or point.predicted < kept[-1].predicted:
            kept.append(point)
    return tuple(kept)
