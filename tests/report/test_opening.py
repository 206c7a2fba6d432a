from dataclasses import replace
from typing import Any

import pytest

from mpq.records.evaluation import Evaluation, Figure
from mpq.report.opening import judged, opening
from mpq.report.report_input import Subject
from mpq.search.run import search
from tests.small import random_table

TABLE = random_table(2, count=6)
PLAN = search(TABLE, "5bits").plan
SCALE = "(very close: up to 2%; close: up to 5%; far: beyond 15%)"


def subject(evidence: dict[str, Any] | None = None, **more: Any) -> Subject:
    plan = replace(PLAN, evidence={"assignment": PLAN.assignment, "metric": "kl_divergence"} | (evidence or {}))
    return Subject("plan.yaml", table=TABLE, plan=plan, **more)


def accuracy(quantized: float, reference: float = 0.9, samples: int = 100) -> Evaluation:
    return Evaluation((Figure("accuracy", quantized, reference),), samples, "test.pt")


@pytest.mark.parametrize(
    ("metric", "error", "told"),
    [
        ("kl_divergence", 0.0002, f"on average at most 1% of the probability moves (Pinsker's inequality), which is very close {SCALE}"),
        ("kl_divergence", 0.005, f"on average at most 5% of the probability moves (Pinsker's inequality), which is close {SCALE}"),
        ("kl_divergence", 0.5, f"on average at most 50% of the probability moves (Pinsker's inequality), which is far {SCALE}"),
        ("relative_mse", 0.01, f"the outputs differ by 10% of their size, which is visibly different {SCALE}"),
        ("cosine", 0.0002, f"the outputs differ by 2% of their length, which is very close {SCALE}"),
        ("top1", 0.03, f"3% of the first answers change, which is close {SCALE}"),
        ("kl_divergence", -1e-9, f"on average at most 0% of the probability moves (Pinsker's inequality), which is very close {SCALE}"),
        ("unknown", 0.1, ""),
        ("kl_divergence", float("inf"), ""),
    ],
)
def test_an_error_is_judged_by_a_standard_that_is_named(metric: str, error: float, told: str) -> None:
    assert judged(metric, error) == told


def test_size_error_and_what_it_means_come_first() -> None:
    text = opening(subject({"measured": {"held_out": 0.0002, "held_out_stderr": 1e-5, "samples": {"held_out": 64}}}), "KL divergence")
    assert text.startswith("model.pt2 takes ")
    assert " times smaller. On 64 held-out samples, its KL divergence from the original is 0.0002 ±1e-5. On average at most 1% of" in text


def test_an_error_that_was_not_measured_is_called_predicted() -> None:
    text = opening(subject({"predicted": 0.25}), "KL divergence")
    assert text.endswith("Its KL divergence is predicted to be 0.25; this plan was not measured as a whole.")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (accuracy(0.9), "Accuracy on 100 samples of test.pt is 90.00%, the original's 90.00%: nothing is lost."),
        (accuracy(0.88), "the original's 90.00%: 2 points are lost, within the ±3 expected from the choice of samples."),
        (accuracy(0.8), "the original's 90.00%: 10 points are lost, more than the ±3 expected from the choice of samples."),
    ],
)
def test_accuracy_stands_beside_the_error(found: Evaluation, told: str) -> None:
    assert opening(subject(evaluation=found), "KL divergence").endswith(told)
