import pytest

from mpq.budget import Budget
from mpq.formats.scheme import parse_scheme
from mpq.records.diff import LayerChange, diff_plans
from mpq.records.plan import Plan, plan_for
from tests.small import linear, table

LAYERS = [linear("a", 8, 64), linear("b", 8, 64), linear("c", 4, 32)]
ERRORS = {"int4": 0.5, "int8": 0.25, "fp16": 0.0}
TABLE = table(LAYERS, {layer.name: ERRORS for layer in LAYERS})
INT4, INT8 = parse_scheme("int4"), parse_scheme("int8")


def plan(a: str, b: str, c: str, **changes: object) -> Plan:
    header = TABLE.header
    schemes = {name: parse_scheme(text) for name, text in zip("abc", (a, b, c), strict=True)}
    made = plan_for(LAYERS, schemes, model=header.model, quantizer="rtn", rest=header.rest)
    return Plan(**{**vars(made), **changes})


def measured(made: Plan, held_out: float) -> Plan:
    evidence = {"assignment": made.assignment, "metric": "kl_divergence", "predicted": 1.0, "measured": {"held_out": held_out}}
    return Plan(**{**vars(made), "evidence": evidence})


def test_a_plan_does_not_differ_from_itself() -> None:
    found = diff_plans(plan("int4", "int8", "int4"), plan("int4", "int8", "int4"))
    assert (found.layers, found.unchanged, found.notes) == ((), 3, ())
    assert all(figure.difference == 0 for figure in found.figures)


def test_a_changed_layer_tells_its_bytes_and_its_error() -> None:
    found = diff_plans(plan("int4", "int8", "int4"), plan("int8", "int8", "int4"), table=TABLE)
    assert found.layers == (LayerChange("a", INT4, INT8, 8 * 64 // 2, -0.25),)
    assert found["bytes of the layers"].difference == 256
    assert found["predicted error"].difference == -0.25


def test_without_a_table_the_error_of_a_layer_is_not_known() -> None:
    assert diff_plans(plan("int4", "int8", "int4"), plan("int8", "int8", "int4")).layers[0].error is None


def test_layers_that_came_or_went_count_with_all_their_bytes() -> None:
    whole = plan("int4", "int8", "int4")
    smaller = Plan(**{**vars(whole), "layers": {"a": INT4, "b": INT8}, "shapes": {"a": (8, 64), "b": (8, 64)}})
    assert diff_plans(whole, smaller).layers == (LayerChange("c", INT4, None, -72),)
    assert diff_plans(smaller, whole).layers == (LayerChange("c", None, INT4, 72),)


def test_measured_errors_stand_side_by_side() -> None:
    found = diff_plans(measured(plan("int4", "int8", "int4"), 0.5), measured(plan("int8", "int8", "int4"), 0.25))
    assert found["error on held-out data"].difference == -0.25


def test_evidence_of_other_schemes_is_left_out_and_said() -> None:
    edited = measured(plan("int4", "int8", "int4"), 0.5).layers
    stale = Plan(**{**vars(measured(plan("int8", "int8", "int8"), 0.5)), "layers": edited})
    found = diff_plans(stale, plan("int4", "int8", "int4"))
    assert found.notes == ("the layers of the old plan were edited after it was measured: its measured errors are left out",)
    with pytest.raises(KeyError):
        found["error on held-out data"]


def test_what_makes_errors_incomparable_is_said() -> None:
    other = plan("int4", "int8", "int4", model={"sha256": "f" * 64}, quantizer="mse", budget=Budget("5bits"))
    assert diff_plans(plan("int4", "int8", "int4"), other).notes == (
        "the plans are for different models: their errors are not comparable",
        "the quantizer changed from rtn to mse",
        "the budget changed from none to 5bits (layers)",
    )


def test_sketches_that_came_are_told_with_their_bytes() -> None:
    found = diff_plans(plan("int4", "int8", "int4"), plan("int4", "int8", "int4", sketches=()))
    assert found.notes == ("sketches for `mpq monitor` take 0 bytes in the old plan and 1,483 bytes in the new one",)


def test_a_diff_is_a_json_object() -> None:
    found = diff_plans(plan("int4", "int8", "int4"), plan("int8", "int8", "int4"), table=TABLE).to_dict()
    assert found["layers"] == [{"layer": "a", "before": "int4", "after": "int8", "bytes": 256, "error": -0.25}]
    assert found["figures"]["bytes of the layers"]["difference"] == 256
