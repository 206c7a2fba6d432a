import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpq.search.final_decision import Finalist, decide, rounded

GENERATOR = np.random.default_rng(1)
BASE = GENERATOR.lognormal(size=100)


def finalist(name: str, held_out: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]], *, uniform: bool = False) -> Finalist:
    choice = (sum(map(ord, name)),)
    errors = np.asarray(held_out, dtype=np.float64)
    return Finalist(name, choice, uniform, 4.5, 0.1, errors, errors)


def test_the_mixed_plan_wins_when_it_is_better_beyond_noise() -> None:
    best, reason = decide([finalist("exact", BASE * 0.8), finalist("int4", BASE, uniform=True)])
    assert best.name == "exact"
    assert reason == "exact: 0.8 of the held-out error of the best uniform plan (int4), beyond noise"


def test_uniform_wins_when_noise_covers_the_difference() -> None:
    noisy = BASE + GENERATOR.normal(0, 1, 100)
    noisy -= noisy.mean() - 0.99 * BASE.mean()
    best, reason = decide([finalist("exact", noisy), finalist("int4", BASE, uniform=True)])
    assert best.name == "int4"
    assert reason == "uniform int4: the best mixed plan (exact) is no better on held-out samples within noise (0.99 of its error)"


def test_uniform_wins_when_it_is_better() -> None:
    best, reason = decide([finalist("exact", BASE * 2), finalist("int4", BASE, uniform=True)])
    assert best.name == "int4"
    assert reason == "uniform int4: the best mixed plan (exact) is worse on held-out samples within noise (2 of its error)"


def test_the_best_uniform_plan_is_the_one_to_beat() -> None:
    uniform = [finalist("int3", BASE * 3, uniform=True), finalist("int4", BASE, uniform=True), finalist("int2", BASE * 9, uniform=True)]
    assert decide([finalist("exact", BASE * 2), *uniform])[0].name == "int4"


def test_a_later_stage_replaces_an_earlier_one_where_both_kinds_of_samples_speak_for_it() -> None:
    noise = np.random.default_rng(5).normal(0, 1, 100)
    likely = BASE + noise - noise.mean() - 0.08  # together 1.1 standard errors below
    assert decide([finalist("exact", BASE), finalist("knobs", likely)])[0].name == "knobs"
    sure, worse = finalist("exact", BASE), finalist("knobs", BASE * 0.5)
    worse = replace(worse, held_out=BASE * 1.01)
    assert decide([sure, worse])[0].name == "exact"


def test_a_later_stage_does_not_replace_an_earlier_one_by_chance() -> None:
    noise = GENERATOR.normal(0, 1, 100)
    found = [finalist("exact", BASE), finalist("knobs", BASE + noise - noise.mean() - 1e-3), finalist("swaps", BASE * 0.9)]
    assert decide(found[:2])[0].name == "exact"
    assert decide(found)[0].name == "swaps"


def test_without_a_uniform_plan_the_mixed_one_stands() -> None:
    assert decide([finalist("exact", BASE)])[1] == "exact: no uniform plan fits the budget"


def test_the_same_plan_keeps_the_name_of_the_stage() -> None:
    same = Finalist("int4", finalist("exact", BASE).choice, True, 4.5, 0.1, BASE, BASE)
    best, reason = decide([finalist("exact", BASE), same])
    assert best.name == "exact"
    assert reason == "exact: the same plan as uniform int4"


def test_a_plan_whose_outputs_are_not_finite_never_wins() -> None:
    broken = BASE.copy()
    broken[0] = math.nan
    assert decide([finalist("exact", BASE), finalist("int4", broken, uniform=True)])[0].name == "exact"
    assert decide([finalist("exact", broken), finalist("int4", BASE, uniform=True)])[0].name == "int4"
    assert decide([finalist("exact", broken), finalist("knobs", BASE * 5), finalist("int4", broken, uniform=True)])[0].name == "knobs"


def test_errors_of_zero_are_no_obstacle() -> None:
    zero = np.zeros(5)
    assert decide([finalist("exact", zero), finalist("int8", zero, uniform=True)])[0].name == "int8"


def test_a_row_holds_rounded_figures_and_nothing_that_is_not_finite() -> None:
    assert finalist("exact", [0.123456, 0.123456, math.nan]).row() == {
        "name": "exact",
        "effective_bits": 4.5,
        "predicted": 0.1,
        "calibration": None,
        "calibration_stderr": None,
        "held_out": None,
        "held_out_stderr": None,
    }
    assert [rounded(value) for value in (0.00123456, 123456.0, math.inf, math.nan)] == [0.001235, 123500.0, None, None]
