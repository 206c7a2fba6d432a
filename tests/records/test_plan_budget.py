from typing import Literal

import pytest

from mpq.budget import Budget
from mpq.errors import ApplyError
from mpq.records.plan import Plan, plan_for
from mpq.records.plan_budget import check_plan_budget
from mpq.shown import bits_text
from tests.small import REST, linear, schemes


def plan(limit: str, scope: Literal["layers", "file"] = "layers") -> Plan:
    """One layer of 1,000 weights in int4 with 10 scales: 520 bytes; beside it a rest of 40 weights."""
    (int4,) = schemes("int4")
    made = plan_for([linear("a", 10, 100)], {"a": int4}, model={"sha256": "a" * 64}, quantizer="rtn", rest=REST)
    return Plan(**{**made.__dict__, "budget": Budget(limit, scope)})


def refused(plan_: Plan) -> str:
    with pytest.raises(ApplyError) as caught:
        check_plan_budget(plan_)
    return str(caught.value)


@pytest.mark.parametrize("limit", ["520b", "4.16bits", "13%", "1MB"])
def test_a_plan_within_its_budget_to_the_byte_passes(limit: str) -> None:
    check_plan_budget(plan(limit))


def test_a_plan_over_its_budget_is_refused_with_what_it_takes_and_by_how_much() -> None:
    assert refused(plan("519b")) == (
        "the plan takes 520 bytes (4.16 bits per weight), 1 more than its budget 519b (layers): "
        "lower a layer, or raise the budget in the plan"
    )
    assert "20 more than its budget 4bits (layers)" in refused(plan("4bits"))
    assert "(4.16 bits per weight), 20 more than its budget 12.5% (layers)" in refused(plan("12.5%"))  # of 4,000 bytes


def test_the_scope_of_the_file_counts_its_header_and_the_rest() -> None:
    whole = plan("1b", "file").size.file_bytes
    check_plan_budget(plan(f"{whole}b", "file"))
    found = refused(plan(f"{whole - 1}b", "file"))
    assert found.startswith(f"the plan takes {whole:,} bytes ({bits_text(8 * whole / 1040)} bits per weight), 1 more than its budget")


def test_a_plan_without_budget_passes() -> None:
    check_plan_budget(Plan(**{**plan("1b").__dict__, "budget": None}))
