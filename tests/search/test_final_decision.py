import math
from dataclasses import replace

import numpy as np
import pytest

from mpq.search.final_decision import Finalist, decide, rounded

GENERATOR = np.random.default_rng(1)
BASE = GENERATOR.lognormal(size=200)


def finalist(name: str, factor: float, *, uniform: bool = False, predicted: float | None = None, held_out: int = 100) -> Finalist:
    noise = np.random.default_rng(sum(map(ord, name))).lognormal(0, 0.1, 200)
    errors = BASE * factor * noise / noise.mean()
    predicted = factor if predicted is None else predicted
    return Finalist(name, (sum(map(ord, name)),), uniform, 4.5, predicted, errors[:100], errors[100 : 100 + held_out])


def test_the_plan_of_the_least_expected_error_wins_and_says_how_sure_that_is() -> None:
    found = decide([finalist("table optimum", 0.5), finalist("int4", 1.0, uniform=True)])
    assert found.best.name == "table optimum"
    assert found.reason.startswith("table optimum: expected error 0.5")
    assert found.reason.endswith(" times that of the best uniform plan (int4), smaller with probability over 99.9%")
    assert found.probability is not None
    assert found.probability > 0.999


def test_uniform_wins_when_it_is_expected_to_be_better() -> None:
    found = decide([finalist("table optimum", 2.0), finalist("int4", 1.0, uniform=True)])
    assert found.best.name == "int4"
    assert found.reason.startswith("uniform int4: expected error 0.5 times that of the best mixed plan (table optimum)")


def test_a_far_better_plan_is_not_refused_for_want_of_held_out_samples() -> None:
    """Prediction and calibration say five times better; a handful of held-out samples, within noise, must not decide alone."""
    exact, uniform = finalist("table optimum", 0.2, held_out=4), finalist("int4", 1.0, uniform=True, held_out=4)
    unlucky = replace(exact, held_out=np.array([0.1, 0.1, 0.1, 2.0]) * uniform.held_out.mean())
    found = decide([unlucky, uniform])
    assert found.best.name == "table optimum"
    assert "the 4 held-out samples alone are too few to show this" in found.reason


def test_of_plans_that_are_alike_the_earlier_one_stands() -> None:
    first = finalist("table optimum", 1.0)
    assert decide([first, replace(first, name="optimum with interactions", choice=(7,))]).best.name == "table optimum"


def test_a_later_stage_wins_where_the_evidence_speaks_for_it() -> None:
    assert decide([finalist("table optimum", 1.0), finalist("layer swaps", 0.7)]).best.name == "layer swaps"
    assert (
        decide(
            [finalist("table optimum", 1.0), replace(finalist("layer swaps", 0.99), held_out=finalist("layer swaps", 1.4).held_out)]
        ).best.name
        == "table optimum"
    )


def test_the_best_uniform_plan_is_the_one_to_beat() -> None:
    uniform = [finalist(name, factor, uniform=True) for name, factor in (("int3", 3.0), ("int4", 1.0), ("int2", 9.0))]
    found = decide([finalist("table optimum", 2.0), *uniform])
    assert found.best.name == "int4"
    assert found.expected.index(min(found.expected)) == 2


def test_without_a_uniform_plan_the_mixed_one_stands() -> None:
    found = decide([finalist("table optimum", 1.0)])
    assert (found.reason, found.probability) == ("table optimum: no uniform plan fits the budget", None)


def test_the_same_plan_keeps_the_name_of_the_stage() -> None:
    exact = finalist("table optimum", 1.0)
    found = decide([exact, replace(exact, name="int4", uniform=True)])
    assert (found.best.name, found.reason) == ("table optimum", "table optimum: the same plan as uniform int4")


def test_a_plan_whose_outputs_are_not_finite_never_wins() -> None:
    sound, uniform = finalist("table optimum", 5.0), finalist("int4", 1.0, uniform=True)
    broken = BASE[:100].copy()
    broken[0] = math.nan
    assert decide([sound, replace(uniform, calibration=broken)]).best.name == "table optimum"
    assert decide([replace(sound, held_out=broken), uniform]).best.name == "int4"
    nothing = decide([replace(sound, held_out=broken), replace(uniform, held_out=broken)])
    assert nothing.reason == "table optimum: no plan has finite outputs"


def test_errors_of_zero_are_no_obstacle() -> None:
    zero = np.zeros(5)
    plans = [Finalist(name, (number,), number == 1, 4.5, 0.0, zero, zero) for number, name in enumerate(("table optimum", "int4"))]
    assert decide(plans).best.name == "table optimum"


@pytest.mark.parametrize(("value", "expected"), [(0.123456, 0.1235), (math.inf, None), (math.nan, None), (0.0, 0.0)])
def test_figures_are_rounded_to_four_digits(value: float, expected: float | None) -> None:
    assert rounded(value) == expected


def test_a_finalist_is_a_row_of_plain_figures() -> None:
    row = finalist("table optimum", 1.0).row()
    assert row["name"] == "table optimum"
    assert row["held_out"] == rounded(float(finalist("table optimum", 1.0).held_out.mean()))
