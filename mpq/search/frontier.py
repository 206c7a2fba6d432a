"""The frontier: the table solved exactly for many sizes at once. No model is needed, and no torch.

It has sizes in equal ratios, the size of every uniform and every measured plan, and the corners of the lower convex hull of all plans,
which greedy steps give at no cost. With few layers, the best plans of all sizes are solved, from large to small. The line goes through
these or, if there are too many, from corner to corner of the hull. No plan lies below it: the plans are solved exactly, and the linear
relaxation proves it for the hull (`solvers/relaxation.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mpq.formats.scheme import Scheme
from mpq.records.artifact_layout import file_bytes
from mpq.records.frontier import Corner, Frontier, Margin, Point
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity, scheme_cost
from mpq.records.stored_sketches import sketch_bytes
from mpq.search.problem import Problem, build_groups
from mpq.search.solvers.relaxation import Vertex, hull_of
from mpq.search.stages.uniform import uniform_plans

POINTS = 96
_FEW_GROUPS = 16
_MOST_STEPS = 400
_SHARE = 0.01
_ROUNDED = 0.00005  # bits that rounding may have removed in a plan's evidence


def frontier(table: Sensitivity, plan: Plan | None = None, *, count: int = POINTS) -> Frontier:
    """The frontier of a complete table, under the plan's pins and ties if one is given.

    Args:
        table: the sensitivities.
        plan: a plan for the same model; it is placed on the frontier, along with the best plans one percent larger and smaller.
        count: number of sizes to solve, in equal ratios from the smallest to the largest plan, and of corners of the hull to return as
            plans.

    Raises:
        UsageError: if pins or ties of the plan cannot be met by the table.
    """
    solver = _Solver(table, plan)
    corners = solver.hull()
    uniform = tuple(solver.point(each.choice, name=each.name) for each in uniform_plans(solver.problem, table, solver.pins))
    whole = solver.staircase()
    limits = {*_spread(solver.problem, count), *(each.layer_bytes for each in uniform), *_finalists(plan)}
    found = [point for limit in sorted(limits) if (point := solver.best(limit)) is not None]
    found += [solver.point(each.choice) for each in _thinned(corners, count)]
    bound = tuple(Corner(8 * each.cost / solver.weights, each.error) for each in corners) if whole is None else tuple(_steps(whole))
    found += whole or []
    if plan is None:
        return Frontier(_falling(found), bound, uniform)
    size = plan.size.layer_bytes
    step = max(1, round(size * _SHARE))
    before = solver.best(size)
    more, less = solver.best(size + step), solver.best(size - step)
    return Frontier(
        _falling([*found, *([before] if before else [])]),
        bound,
        uniform,
        solver.chosen(),
        Margin(before, more) if before and more and more.predicted < before.predicted else None,
        Margin(before, less) if before and less and less.schemes != before.schemes else None,
    )


def _steps(points: Sequence[Point]) -> Iterator[Corner]:
    """The corners of the staircase through all best plans: the error is constant up to the next plan."""
    before: Point | None = None
    for point in _falling(points):
        if before is not None:
            yield Corner(point.effective_bits, before.predicted)
        yield Corner(point.effective_bits, point.predicted)
        before = point


def _spread(problem: Problem, count: int) -> set[int]:
    """Sizes in equal ratios from the smallest to the largest plan."""
    low, high = problem.smallest, problem.largest
    ratio = high / low
    return {round(low * ratio ** (step / (count - 1))) for step in range(count)} | {low, high}


def _finalists(plan: Plan | None) -> set[int]:
    """The sizes of the measured plans, rounded up because their bits in the evidence are rounded."""
    rows = [] if plan is None or not plan.evidence_is_current else plan.evidence.get("finalists", [])
    return set() if plan is None else {math.ceil((float(row["effective_bits"]) + _ROUNDED) * plan.weights / 8) for row in rows}


def _thinned(corners: Sequence[Vertex], count: int) -> Sequence[Vertex]:
    """At most `count` of the corners, evenly spaced."""
    if len(corners) <= count:
        return corners
    return [corners[round(step * (len(corners) - 1) / (count - 1))] for step in range(count)]


class _Solver:
    """One problem, solved for any limit."""

    def __init__(self, table: Sensitivity, plan: Plan | None) -> None:
        self.table, self.plan = table, plan
        self.pins: Mapping[str, Scheme] = {} if plan is None else {name: plan.layers[name] for name in plan.pinned}
        groups = build_groups(table, pins=self.pins, ties=() if plan is None else plan.ties)
        self.problem = Problem(groups, Problem(groups, 0).largest)
        self.weights = sum(layer.weights for layer in table.layers)
        self._known: dict[tuple[str, Scheme, str], int] = {}

    def hull(self) -> list[Vertex]:
        """The vertices of the lower convex hull of all plans."""
        groups = self.problem.groups
        return hull_of([[o.cost for o in group.options] for group in groups], [[o.error for o in group.options] for group in groups])

    def staircase(self) -> list[Point] | None:
        """The best plans of all sizes, from the largest down, each solved below the size of the previous one; None if too many."""
        if len(self.problem.groups) > _FEW_GROUPS:
            return None
        found: list[Point] = []
        limit = self.problem.largest
        while len(found) < _MOST_STEPS:
            point = self.best(limit)
            if point is None:
                return found
            if point.gap:
                return None
            found.append(point)
            limit = point.layer_bytes - 1
        return None

    def best(self, limit: int) -> Point | None:
        solution = replace(self.problem, limit=limit).solve()
        return None if solution is None else self.point(solution.choice, gap=solution.gap)

    def point(self, choice: Sequence[int], *, name: str = "", gap: float = 0.0) -> Point:
        return self._placed(self.problem.schemes(choice), self.problem.error(choice), name=name, gap=gap)

    def chosen(self) -> Point | None:
        """The plan's own point; None without a plan, or if one of its schemes was not measured."""
        if self.plan is None or any((name, scheme) not in self.table.errors for name, scheme in self.plan.layers.items()):
            return None
        predicted = math.fsum(self.table.mean(name, scheme) for name, scheme in self.plan.layers.items())
        return self._placed(self.plan.layers, predicted, name="this plan", gap=0.0)

    def _placed(self, schemes: Mapping[str, Scheme], predicted: float, *, name: str, gap: float) -> Point:
        rest, layers = self.table.header.rest if self.plan is None else self.plan.rest, self.table.layers
        ordered = {layer.name: schemes[layer.name] for layer in layers}
        data = sum(self._cost(layer, ordered[layer.name], "layers") for layer in layers)
        header = sum(self._cost(layer, ordered[layer.name], "file") for layer in layers) - data
        header += 0 if self.plan is None else sketch_bytes(self.plan.sketches)
        total = file_bytes(header_bytes=rest.header_bytes + header, data_bytes=rest.data_bytes + data)
        return Point(name, ordered, 8 * data / self.weights, data, total, predicted, gap)

    def _cost(self, layer: Layer, scheme: Scheme, scope: str) -> int:
        """`scheme_cost`, cached: every point needs every layer."""
        key = (layer.name, scheme, scope)
        if key not in self._known:
            self._known[key] = scheme_cost(layer, scheme, scope=scope)
        return self._known[key]


def _falling(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points in order of size, each with a smaller error than all previous ones."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.layer_bytes, p.predicted)):
        if not kept or point.predicted < kept[-1].predicted:
            kept.append(point)
    return tuple(kept)
