import math
from dataclasses import replace

import pytest

from mpq.report.report_input import Subject
from mpq.report.rows import LEVELS, Block, Cell, facts_of, level_of
from mpq.report.words import TIMES
from mpq.search.run import search
from tests.report.making import ARTIFACT
from tests.small import linear, random_table, table


def test_colour_deepens_with_the_error() -> None:
    levels = [level_of(10.0**-e, 1e-4, 1.0) for e in (5, 4, 3, 2, 1, 0)]
    assert levels == [0, 0, 2, 5, 7, LEVELS - 1]
    assert level_of(math.inf, 1e-4, 1.0) == level_of(math.nan, 1e-4, 1.0) == LEVELS - 1
    assert level_of(-1.0, 1e-4, 1.0) == level_of(1.0, 1.0, 1.0) == 0


def test_blocks_add_up_to_the_layers() -> None:
    found = random_table(1, count=9)
    plan = search(found, "5bits").plan
    facts = facts_of(Subject("p", table=found, plan=plan))
    assert sum(block.total for block in facts.blocks) == plan.size.layer_bytes
    assert sum(block.layers for block in facts.blocks) == len(facts.rows) == 9


def test_a_row_holds_what_is_known_of_its_layer() -> None:
    found = table(
        [linear("blocks.0.q", 4, 64), linear("head", 2, 64)],
        {"blocks.0.q": {"int4": [1.0, 3.0], "int8": [0.5, 0.5]}, "head": {"int8": [0.25, 0.75]}},
    )
    plan = replace(search(found, "9bits", pins={"head": "int8"}).plan, layers={"blocks.0.q": found.header.candidates["blocks.0.q"][0]})
    plan = replace(plan, layers=plan.layers | {"head": found.header.candidates["head"][0]})
    facts = facts_of(Subject("p", table=found, plan=plan))
    assert [str(scheme) for scheme in facts.schemes] == ["int4", "int8"]
    assert facts.heat == (0, 1)
    assert (facts.least, facts.greatest) == (0.5, 2.0)
    first, second = facts.rows
    assert (first.number, first.name, first.block, first.operator, first.shape) == (1, "blocks.0.q", "blocks.0", "linear", f"4 {TIMES} 64")
    assert (first.scheme, first.bytes, first.bits, first.weights) == (0, 4 * 64 // 2 + 4 * 2, 4.25, 256)
    assert (first.error, first.stderr, first.pinned) == (2.0, 1.0, False)
    assert first.cells == (Cell(2.0, 1.0, 136, LEVELS - 1, True), Cell(0.5, 0.0, 264, 0, False))
    assert (second.scheme, second.pinned, second.cells[0]) == (1, True, None)
    assert facts.blocks == (Block("blocks.0", {0: 136}, 256, 1), Block("head", {1: 132}, 128, 1))


def test_figures_within_two_standard_errors_of_zero_are_counted() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": [1.0, 3.0], "int8": [0.5, 0.5], "fp16": [-0.1, 0.1]}})
    assert facts_of(Subject("p", table=found)).noisy == (2, 3)


def test_a_table_alone_has_no_sizes() -> None:
    (row,) = facts_of(Subject("p", table=table([linear("a", 4, 64)], {"a": {"int4": 1.0}}))).rows
    assert (row.scheme, row.bits, row.bytes, row.error, row.stderr) == (None, None, None, None, None)


def test_an_artifact_alone_has_sizes_and_no_errors() -> None:
    facts = facts_of(Subject("x", artifact=ARTIFACT))
    assert (facts.heat, facts.least, facts.greatest, facts.noisy) == ((), 0.0, 0.0, (0, 0))
    (row,) = facts.rows
    assert (row.bytes, row.error, row.cells) == (136, None, (None,))


def test_colours_span_at_most_four_decades() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": 10.0, "int8": 1e-9}})
    facts = facts_of(Subject("p", table=found))
    assert [facts.least, facts.greatest] == pytest.approx([1e-3, 10.0])


def test_an_operator_of_no_known_kind_is_not_named() -> None:
    layer = replace(linear("a", 4, 64), operator="other")
    (row,) = facts_of(Subject("p", table=table([layer], {"a": {"int4": 1.0}}))).rows
    assert row.operator == ""


def test_limits_are_totaled_over_the_layers_that_have_one() -> None:
    found = table([linear("a", 4, 64), linear("b", 2, 64), linear("c", 2, 64)], {name: {"int4": 1.0} for name in "abc"})
    plan = search(found, "16bits").plan
    facts = facts_of(Subject("p", table=found, plan=plan, limits={"a": 3.5, "b": 2.0}))
    assert [row.limit for row in facts.rows] == [3.5, 2.0, None]
    assert facts.limit is not None
    assert facts.limit == pytest.approx((4.25, 3.0))
    assert facts_of(Subject("p", table=found, plan=plan)).limit is None
