from typing import Any

import pytest

from mpq.formats.scheme import parse_scheme
from mpq.records.artifact import rest_of
from mpq.records.plan import plan_to_yaml
from mpq.search.problem import Problem, build_groups
from mpq.search.stages.uniform import uniform_plans
from mpq.search.uniform_plan import uniform_plan, uniform_scheme
from tests.search.measuring import FakeMeasurer
from tests.search.stages.test_uniform import EVERYTHING, LAYERS, TABLE
from tests.small import random_table


@pytest.mark.parametrize("text", ["int4", "int4-g128", "int4-g32", "int8", "fp16"])
def test_a_uniform_plan_is_the_one_that_competes_in_a_search(text: str) -> None:
    problem = Problem(build_groups(TABLE), EVERYTHING)
    competing = next(plan for plan in uniform_plans(problem, TABLE, {}) if plan.name == text)
    found = uniform_plan(TABLE, parse_scheme(text))
    assert found.plan.layers == problem.schemes(competing.choice)
    assert found.plan.evidence["predicted"] == pytest.approx(problem.error(competing.choice), rel=1e-3)
    assert set(competing.exceptions) == {name for note in found.notes for name in note.split(": ")[1].split(", ")}


def test_layers_that_cannot_use_the_scheme_are_named_with_what_they_use() -> None:
    assert uniform_plan(TABLE, parse_scheme("int4-g128")).notes == (
        "int4 instead of int4-g128, the nearest scheme measured for them: b, c",
    )
    assert uniform_plan(TABLE, parse_scheme("int3-g64")).notes[0] == "int3 instead of int3-g64, a row has only one group: c"


def test_a_scheme_that_was_not_measured_has_no_predicted_error() -> None:
    found = uniform_plan(TABLE, parse_scheme("int3-g64"))
    assert [str(scheme) for scheme in found.plan.layers.values()] == ["int3-g64", "int3-g64", "int3"]
    assert found.plan.evidence["predicted"] is None
    assert found.notes[-1] == "no predicted error: the analysis did not measure all of these schemes"
    assert str(uniform_scheme(TABLE, LAYERS[2], parse_scheme("int3-g32"))) == "int3-g32"


def test_another_quantizer_is_written_into_the_plan_which_then_has_measured_errors_alone() -> None:
    measurer = FakeMeasurer(TABLE)
    found = uniform_plan(TABLE, parse_scheme("int8"), quantizer="hqq", measurer=measurer)
    held_out = measurer.held_out(found.plan.layers)
    assert (found.plan.quantizer, found.plan.analysis) == ("hqq", {})
    assert found.plan.evidence["predicted"] is None
    assert found.plan.evidence["measured"]["held_out"] == pytest.approx(held_out.mean(), rel=1e-3)
    assert found.notes[-1] == "no predicted error: the analysis used the quantizer rtn, this plan uses hqq"
    assert found.plan.evidence_is_current
    assert "mpq_plan: 1" in plan_to_yaml(found.plan)


def test_the_size_of_the_file_counts_the_name_of_the_quantizer() -> None:
    table = random_table(0)
    texts: dict[str, Any] = {"model": table.header.model, "aliases": {}, "config": {}, "weights": 0, "original_bytes": 0}
    sizes = [rest_of(table.layers, [], quantizer=name, **texts).header_bytes for name in ("rtn", "descent")]
    plans = [uniform_plan(table, parse_scheme("int8"), quantizer=name).plan for name in ("rtn", "descent")]
    assert plans[1].rest.header_bytes - plans[0].rest.header_bytes == sizes[1] - sizes[0] > 0
