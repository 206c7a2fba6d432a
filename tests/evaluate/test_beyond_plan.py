from typing import Any

import pytest

from mpq.evaluate.beyond_plan import beyond_plan
from mpq.records.evaluation import Evaluation, Figure

FOUND = Evaluation((Figure("kl_divergence", 0.003), Figure("top1_agreement", 0.9)), 100, "test.pt")


def evidence(metric: str, held_out: float | None) -> dict[str, Any]:
    return {"metric": metric, "measured": {"held_out": held_out}}


def test_an_error_far_beyond_the_plans_is_told_with_both_values() -> None:
    line = beyond_plan(FOUND, evidence("kl_divergence", 2.2e-5), plan="plan.yaml")
    assert line is not None
    assert line.startswith("kl_divergence is 0.003 on this data, 136 times the 2.2e-05 on the held-out samples of plan.yaml: ")
    assert line.endswith("If it was training data, analyze again with validation data")


@pytest.mark.parametrize(("metric", "held_out", "told"), [("top1", 0.03, True), ("top1", 0.04, False), ("kl_divergence", 0.0011, False)])
def test_three_times_is_the_limit_and_an_agreement_is_an_error_of_what_it_lacks(metric: str, held_out: float, told: bool) -> None:
    assert (beyond_plan(FOUND, evidence(metric, held_out), plan="p") is not None) == told


def test_the_combined_error_of_several_outputs_is_compared_with_the_plans() -> None:
    found = Evaluation((Figure("relative_mse", 0.1), Figure("combined", 0.02)), 10, "t.pt")
    line = beyond_plan(found, evidence("combined", 0.005), plan="p")
    assert line is not None
    assert line.startswith("combined is 0.02 on this data, 4 times the 0.005 on the held-out samples of p: ")
    assert beyond_plan(found, evidence("combined", 0.007), plan="p") is None


@pytest.mark.parametrize(
    "known",
    [
        {},
        evidence("kl_divergence", None),
        evidence("combined", 1e-9),
        evidence("other", 1e-9),
        {"metric": "weight_error", "predicted": 1.0},
    ],
)
def test_a_plan_that_was_not_measured_says_nothing(known: dict[str, Any]) -> None:
    assert beyond_plan(FOUND, known, plan="p") is None
