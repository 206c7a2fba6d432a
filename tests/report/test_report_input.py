from dataclasses import replace

import pytest

from mpq.errors import UsageError
from mpq.records.layer import Layer
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.report.making import ARTIFACT
from tests.small import linear, random_table, schemes, table

INT4, INT8 = schemes("int4", "int8")


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^a report needs a sensitivity file, a plan or an artifact$"):
        Subject("x")


def test_the_title_is_the_name_of_the_models_file() -> None:
    found = random_table(0)
    plan = search(found, "5bits").plan
    assert Subject("x", table=found).title == "model.pt2"
    assert Subject("x", artifact=ARTIFACT).title == "b.pt2"
    assert Subject("x", plan=replace(plan, model={"kind": "module"})).title == "model in memory"


def test_a_plan_speaks_for_the_model_before_the_artifact_and_the_table() -> None:
    found = random_table(0)
    plan = replace(search(found, "5bits").plan, model={"path": "plan.pt2"})
    assert Subject("x", table=found, plan=plan, artifact=ARTIFACT).title == "plan.pt2"
    assert Subject("x", table=found, artifact=ARTIFACT).title == "b.pt2"


def test_a_plan_alone_knows_matrices_only() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}})
    plan = search(found, "8bits").plan
    assert Subject("x", plan=plan).layers == (Layer("a", ("a",), (4, 64), (0,), "float32"),)
    assert Subject("x", plan=plan, table=found).layers == found.layers
    assert Subject("x", artifact=ARTIFACT).layers == (linear("a", 4, 64),)


def test_a_table_alone_shows_the_point_nearest_to_four_and_a_half_bits() -> None:
    found = random_table(2)
    curve = frontier(found, count=9)
    subject = Subject("x", table=found, frontier=curve)
    assert subject.schemes == {}
    assert subject.shown is not None
    assert abs(subject.shown.effective_bits - 4.5) == min(abs(point.effective_bits - 4.5) for point in curve.points)
    assert subject.drawn == subject.shown.schemes


def test_chosen_schemes_are_drawn_where_there_are_some() -> None:
    found = random_table(2)
    plan = search(found, "5bits").plan
    subject = Subject("x", table=found, plan=plan, frontier=frontier(found, plan, count=9))
    assert subject.shown is None
    assert subject.drawn == subject.schemes == plan.layers
    assert Subject("x", table=found).drawn == {}


def test_the_metric_is_that_of_the_table_or_of_the_evidence() -> None:
    found = random_table(2)
    plan = search(found, "5bits").plan
    assert Subject("x", table=found, plan=replace(plan, evidence={"metric": "cosine"})).metric == "kl_divergence"
    assert Subject("x", plan=replace(plan, evidence={"metric": "cosine"})).metric == "cosine"
    assert Subject("x", plan=replace(plan, evidence={})).metric is None
    assert Subject("x", artifact=ARTIFACT).metric is None


def test_evidence_of_other_schemes_is_left_out() -> None:
    plan = search(random_table(2), "5bits").plan
    current = replace(plan, evidence={"assignment": plan.assignment, "predicted": 0.5})
    assert Subject("x", plan=current).evidence["predicted"] == 0.5
    assert Subject("x", plan=replace(current, evidence={"assignment": "0" * 12, "predicted": 0.5})).evidence == {}
    assert Subject("x", artifact=ARTIFACT).evidence == {}


def test_an_error_is_a_mean_with_its_standard_error() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": [1.0, 3.0]}})
    subject = Subject("x", table=found)
    assert subject.error("a", INT4) == (2.0, 1.0)
    assert subject.error("a", INT8) is None
    assert subject.error("a", None) is None
    assert subject.error("b", INT4) is None
    assert Subject("x", artifact=ARTIFACT).error("a", INT4) is None
