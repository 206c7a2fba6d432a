from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.formats.matrix import Matrix
from mpq.limits import LAYER_WEIGHTS
from mpq.reading.documents import Document, yaml_document
from mpq.reading.validate import validated
from mpq.records.plan_file import PlanFile, check_names, matrices_in

SMALLEST: dict[str, Any] = {
    "mpq_plan": 1,
    "model": {"sha256": "a" * 64},
    "quantizer": "rtn",
    "layers": {"a": "int4", "b": "int8"},
    "shapes": {"a": "2x3", "b": "4x5"},
    "original_bytes": 104,
    "rest": {"header_bytes": 1, "data_bytes": 2, "weights": 3, "original_bytes": 4},
}
TEXT = 'shapes:\n  a: 2x3\n  "b c": 64x128\n'


def document(value: Any = None) -> Document:
    return Document(value, "plan.yaml", remedy="run `mpq search` again")


def file(**changes: Any) -> PlanFile:
    return validated(document(SMALLEST | changes), PlanFile)


def refused(call: Any, *args: Any) -> str:
    with pytest.raises(FormatError) as caught:
        call(*args)
    return str(caught.value)


def test_the_smallest_plan_has_nothing_beside_its_layers() -> None:
    found = file()
    assert (found.budget, found.evidence, found.analysis, found.pinned, found.ties, found.axes) == (None, None, None, [], [], {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mpq_plan": 5}, "mpq_plan is 5: give one of 1, 2, 3, 4"),
        ({"layers": {}}, "layers is {}: give a mapping of 1 or more entries"),
        ({"layers": {"a": 4}}, "layers.a is 4: give a scheme, for example int4 or int4-g32"),
        ({"shapes": {"a": 23}}, "shapes.a is 23: give rows x columns, for example 64x128"),
        ({"original_bytes": 0}, "original_bytes is 0: give a whole number of 1 or more"),
        ({"budget": {"limit": 4, "scope": "layers"}}, "budget.limit is 4: give a size, for example 4.5bits, 12MB or 30%"),
        ({"budget": {"limit": "4bits", "scope": "all"}}, "budget.scope is 'all': give one of layers, file"),
        ({"ties": [["a"]]}, "ties[0] is ['a']: give a list of 2 or more entries"),
        ({"axes": {"a": [32]}}, "axes.a[0] is 32: give a whole number of at most 31"),
        ({"sizes": 3}, "it has the unknown key 'sizes': use mpq_plan, model, quantizer, layers, shapes"),
    ],
)
def test_a_wrong_part_is_refused_with_its_place_and_what_would_be_right(changes: dict[str, Any], reason: str) -> None:
    assert refused(lambda: file(**changes)).startswith(f"plan.yaml: {reason}")


def test_matrices_are_rows_times_columns() -> None:
    assert matrices_in(document(), {"a": "2x3", "b": "0064x128"}) == {"a": (2, 3), "b": (64, 128)}
    assert matrices_in(document(), {}) == {}


@pytest.mark.parametrize("text", ["2", "x", "2x", "x3", "0x3", "2x0", "-2x3", "2x3x4", "2 x 3", "2X3", "2.0x3", "²x3"])
def test_a_shape_that_is_no_matrix_is_refused_with_its_line(text: str) -> None:
    plan = yaml_document(TEXT, name="plan.yaml", error=FormatError, remedy="edit it")
    found = refused(matrices_in, plan, {"a": "2x3", "b c": text}, "shapes")
    assert found == f"plan.yaml, line 3: the shape of 'b c' is {text!r}: give rows x columns, for example 64x128; edit it"


def test_a_shape_says_how_many_rows_are_one() -> None:
    plan = yaml_document(TEXT, name="plan.yaml", error=FormatError, remedy="edit it")
    assert matrices_in(plan, {"a": "9x4/5", "b": "9x4"}) == {"a": Matrix(9, 4, 5), "b": (9, 4)}
    for text in ("9x4/1", "9x4/10", "9x4/", "9x4/x", "9/5"):
        assert "give rows x columns" in refused(matrices_in, plan, {"a": "2x3", "b c": text}, "shapes")


def test_more_weights_than_any_model_has_are_refused_with_the_largest_layer() -> None:
    plan = yaml_document(TEXT, name="plan.yaml", error=FormatError, remedy="edit it")
    assert matrices_in(plan, {"a": f"1x{LAYER_WEIGHTS}"}) == {"a": (1, LAYER_WEIGHTS)}
    found = refused(matrices_in, plan, {"a": "2x3", "b c": f"1x{LAYER_WEIGHTS}"}, "shapes")
    assert found == "plan.yaml, line 3: the layers have more than 281,474,976,710,656 weights; the largest is 'b c': edit it"


def test_pins_ties_and_axes_of_layers_that_are_there_pass() -> None:
    check_names(document(), file(pinned=["a"], ties=[["a", "b"]], axes={"b": [1]}, groups={"b": 2}))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"pinned": ["a", "c"]}, "pinned"),
        ({"ties": [["a", "c"]]}, "ties"),
        ({"axes": {"c": [1]}}, "axes"),
        ({"groups": {"c": 2}}, "groups"),
    ],
)
def test_layers_that_are_not_there_are_refused(changes: dict[str, Any], key: str) -> None:
    assert refused(check_names, document(), file(**changes)) == (
        f"plan.yaml: {key} names 'c', which is not among the layers; run `mpq search` again"
    )


@pytest.mark.parametrize(("ties", "twice"), [([["a", "b"], ["b", "a"]], "a"), ([["b", "b"]], "b"), ([["a", "b"], ["b", "c"]], "b")])
def test_a_layer_that_is_tied_twice_is_refused(ties: list[list[str]], twice: str) -> None:
    plan = file(ties=ties, layers={"a": "int4", "b": "int4", "c": "int4"})
    assert refused(check_names, document(), plan) == f"plan.yaml: layer '{twice}' is tied twice: put each layer into one group only"
