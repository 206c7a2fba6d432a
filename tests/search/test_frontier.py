import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.records.frontier import Corner
from mpq.records.plan import plan_for
from mpq.records.sensitivity import Sensitivity
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.small import linear, random_table, table


def all_plans(found: Sensitivity) -> list[tuple[int, float]]:
    """(bytes, error) of every possible plan."""
    options = [
        [(scheme.stored_bits(layer.matrix) // 8, found.mean(layer.name, scheme)) for scheme in found.header.candidates[layer.name]]
        for layer in found.layers
    ]
    return [(sum(b for b, _ in each), math.fsum(e for _, e in each)) for each in itertools.product(*options)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_plan_lies_below_the_frontier(seed: int) -> None:
    found = random_table(seed, count=4)
    plans = all_plans(found)
    for point in frontier(found, count=12).points:
        least = min(error for size, error in plans if size <= point.layer_bytes)
        assert point.predicted == pytest.approx(least)


def line_at(bound: Sequence[Corner], bits: float) -> float:
    """The least error of the line at a size; beyond the last corner that corner's."""
    left = [corner for corner in bound if corner.effective_bits <= bits + 1e-9]
    right = next((corner for corner in bound if corner.effective_bits > bits + 1e-9), None)
    a = left[-1]
    if right is None:
        return a.predicted
    return a.predicted + (right.predicted - a.predicted) * (bits - a.effective_bits) / (right.effective_bits - a.effective_bits)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), finite=st.booleans(), stairs=st.booleans())
def test_no_plan_lies_below_the_line(seed: int, *, finite: bool, stairs: bool) -> None:
    found = random_table(seed, count=4)
    if not finite:  # a measurement that noise has brought below zero
        key = next(key for key in found.errors if key[1].format == "fp16")
        found.errors[key] = found.errors[key] - 2 * found.errors[key].mean()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("mpq.search.frontier"), "_FEW_GROUPS", 4 * stairs)
        reach, weights = frontier(found, count=12), sum(layer.weights for layer in found.layers)
    plans = all_plans(found)
    for corner in reach.bound[::2] if stairs else reach.bound:  # of the stairs every other corner is inside a step
        size = round(corner.effective_bits * weights / 8)
        assert any(size == own and error == pytest.approx(corner.predicted) for own, error in plans)
    if stairs:  # every best plan is on them
        best = [error for size, error in plans if error <= min(e for s, e in plans if s <= size) + 1e-15]
        assert len({round(error, 9) for error in best}) == len(reach.bound) // 2 + 1
    for size, error in plans:
        assert error >= line_at(reach.bound, 8 * size / weights) - 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_uniform_plan_and_no_finalist_is_better_than_a_plan_of_the_frontier(seed: int) -> None:
    found = random_table(seed, count=6)
    plan = search(found, "5bits").plan
    rows = [{"effective_bits": round(bits, 4), "predicted": error} for bits, error in random_plans(found, seed)]
    reach = frontier(found, replace(plan, evidence=plan.evidence | {"finalists": rows}), count=3)
    known = [(each.effective_bits, each.predicted) for each in reach.uniform] + [(row["effective_bits"], row["predicted"]) for row in rows]
    for bits, error in known:
        assert any(point.effective_bits <= bits + 1e-4 and point.predicted <= error + 1e-12 for point in reach.points)


def random_plans(found: Sensitivity, seed: int) -> list[tuple[float, float]]:
    """(bits per weight, error) of plans drawn at random."""
    generator = random.Random(seed)
    drawn = [{layer.name: generator.choice(found.header.candidates[layer.name]) for layer in found.layers} for _ in range(5)]
    layers, weights = {layer.name: layer for layer in found.layers}, sum(layer.weights for layer in found.layers)
    sizes = [sum(scheme.stored_bits(layers[name].matrix) for name, scheme in each.items()) / weights for each in drawn]
    return [(bits, math.fsum(found.mean(*pair) for pair in each.items())) for bits, each in zip(sizes, drawn, strict=True)]


def test_sizes_rise_and_errors_fall_along_the_frontier() -> None:
    points = frontier(random_table(1)).points
    for a, b in itertools.pairwise(points):
        assert a.layer_bytes < b.layer_bytes
        assert a.predicted > b.predicted


def test_points_have_the_size_of_their_plan() -> None:
    found = random_table(2)
    header = found.header
    for point in frontier(found, count=5).points:
        size = plan_for(header.layers, point.schemes, model=header.model, quantizer="rtn", rest=header.rest).size
        assert (point.effective_bits, point.layer_bytes, point.file_bytes) == (size.effective_bits, size.layer_bytes, size.file_bytes)


def test_uniform_plans_lie_on_or_above_the_frontier() -> None:
    found = random_table(3)
    reach = frontier(found)
    assert {point.name for point in reach.uniform} == {"int2", "int4", "int4-g32", "int8", "fp16"}
    for uniform in reach.uniform:
        best = search(found, f"{uniform.layer_bytes}B").plan
        assert sum(found.mean(name, scheme) for name, scheme in best.layers.items()) <= uniform.predicted * (1 + 1e-9)


def test_an_exact_plan_is_its_own_margin() -> None:
    found = random_table(4, count=24)
    plan = search(found, "5bits").plan
    reach = frontier(found, plan)
    assert reach.chosen is not None
    assert reach.chosen.schemes == plan.layers
    assert reach.more is not None
    assert reach.less is not None
    assert reach.more.before.schemes == reach.less.before.schemes == plan.layers
    assert reach.more.bytes > 0 > reach.more.error
    assert reach.less.bytes < 0 < reach.less.error
    assert {c.layer: c.before for c in reach.less.changes} == {c.layer: plan.layers[c.layer] for c in reach.less.changes}


def test_at_the_smallest_size_nothing_can_be_given_up() -> None:
    found = table([linear("a", 8, 64)], {"a": {"int4": 1.0, "int8": 0.5}})
    assert frontier(found, search(found, "4.3bits").plan).less is None


def test_at_the_largest_size_nothing_more_can_be_bought() -> None:
    found = table([linear("a", 8, 64)], {"a": {"int4": 1.0, "int8": 0.5}})
    assert frontier(found, search(found, "9bits").plan).more is None


def test_a_plan_with_a_scheme_that_was_not_measured_has_no_point() -> None:
    found = random_table(5)
    plan = search(found, "5bits").plan
    from mpq.formats.scheme import parse_scheme

    edited = plan.with_layers({**plan.layers, found.layers[0].name: parse_scheme("int3")})
    assert frontier(found, edited).chosen is None


def test_pins_of_the_plan_hold_along_the_frontier() -> None:
    found = random_table(6)
    name = found.layers[0].name
    plan = search(found, "6bits", pins={name: "int8"}).plan
    assert {str(point.schemes[name]) for point in frontier(found, plan).points} == {"int8"}
