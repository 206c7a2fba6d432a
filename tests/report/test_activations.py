from dataclasses import replace

from mpq.records.activations import ActivationGroup, RoundedTensor
from mpq.records.measured_activations import MeasuredGroup
from mpq.records.sensitivity import Sensitivity
from mpq.report.activations import HEIGHT, activation_lines_of, activation_rows
from mpq.report.render import render
from mpq.report.report_input import Subject
from mpq.search.run import search
from tests.small import linear, table

GROUP = ActivationGroup("a8", (RoundedTensor(("conv.0", "add.0.1"), 0.01, 0), RoundedTensor(("add.0.0",), 0.5, 128)))
MEASURED = MeasuredGroup(
    "a",
    GROUP,
    ("a",),
    128,
    (0.1, 0.3),
    ("mse", "minmax"),
    ((0.0, 5.1), (-60.0, 60.0)),
    ((100, 25, 0, 4), (1, 1, 1, 1)),
    ((1e-3, 2e-4), (0.0, 0.1)),
)


def made() -> Sensitivity:
    found = table([linear("a", 8, 16)], {"a": {"int8": 0.1}})
    found.activations["a", "a8"] = MEASURED
    assert found.finish is not None
    found.finish["activations"] = {"schemes": ["a8"], "check": {"a8": {"groups": 1, "together": 0.25, "sum": 0.2}}}
    return found


def test_each_tensor_has_its_range_its_costs_and_a_picture() -> None:
    found = made()
    plan = search(found, "32bits", trials=0).plan
    (row,) = activation_rows(Subject("plan.yaml", table=found, plan=plan))
    assert (row.name, row.scheme, row.is_on, row.error, row.work) == ("a", "a8", True, 0.2, 128)
    first, second = row.tensors
    assert (first.readers, first.range, first.method, first.clipping) == ("conv.0, add.0.1", "0 to 2.55", "mse", 1e-3)
    assert first.bars == (HEIGHT, HEIGHT // 2, 0, 8)
    assert first.marks == (0.5,)
    assert second.marks == ()
    assert not activation_rows(Subject("t.jsonl", table=found))[0].is_on


def test_a_plan_alone_has_its_ranges() -> None:
    plan = replace(search(made(), "32bits", trials=0).plan, activations={"x": ActivationGroup("a8d", (RoundedTensor(("linear.0",)),))})
    (row,) = activation_rows(Subject("plan.yaml", plan=plan))
    assert (row.name, row.error, row.tensors[0].range) == ("x", None, "per token")
    assert activation_lines_of(Subject("plan.yaml", plan=plan)) == ["In this plan: 1 tensor in 1 group: 1 a8d."]


def test_the_page_has_a_section_only_where_something_was_measured() -> None:
    found = made()
    page = render(Subject("plan.yaml", table=found, plan=search(found, "32bits", trials=0).plan))
    assert "Activations in a8: 1 group, all together have an error of 0.25" in page
    assert page.count("histogram of the values") == 2
    found.activations.clear()
    assert "Tensors between layers" not in render(Subject("t.jsonl", table=found))
