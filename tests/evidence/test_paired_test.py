import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mpq.evidence.paired_test import compare

GENERATOR = np.random.default_rng(0)
BASE = GENERATOR.lognormal(size=200)


def test_the_statistic_is_that_of_a_paired_t_test() -> None:
    candidate = BASE * 0.97 + GENERATOR.normal(0, 0.1, 200)
    found = compare(candidate, BASE)
    assert found.difference / found.stderr == pytest.approx(stats.ttest_rel(candidate, BASE).statistic)


def test_a_small_gain_on_every_sample_is_seen_through_the_samples_own_spread() -> None:
    found = compare(BASE * 0.99, BASE)
    assert found.better
    assert not found.worse


def test_a_gain_inside_the_noise_is_no_gain_and_no_loss() -> None:
    found = compare(BASE + GENERATOR.normal(-0.001, 1.0, 200), BASE)
    assert not found.better
    assert not found.worse


def test_equal_plans_are_neither_better_nor_worse() -> None:
    assert not compare(BASE, BASE).better
    assert not compare(BASE, BASE).worse


def test_one_sample_proves_nothing() -> None:
    found = compare(np.array([0.0]), np.array([9.0]))
    assert found.stderr == math.inf
    assert not found.better


def test_an_output_that_is_not_finite_is_infinitely_worse() -> None:
    broken = np.array([0.0, math.nan])
    assert compare(broken, np.array([9.0, 9.0])).worse
    assert compare(np.array([9.0, 9.0]), broken).better
    assert not compare(broken, broken).better


def test_a_gain_on_nearly_every_sample_is_seen_in_spite_of_a_few_heavy_ones() -> None:
    incumbent = np.full(128, 100.0)
    candidate = incumbent - np.linspace(0.01, 0.02, 128)
    candidate[:4] += [30.0, -31.0, 25.0, -26.0]
    found = compare(candidate, incumbent)
    assert -found.difference < 1.96 * found.stderr
    assert found.better


def test_ranks_alone_do_not_make_a_larger_mean_better() -> None:
    incumbent = np.full(100, 1.0) + np.random.default_rng(2).normal(0, 0.001, 100)
    candidate = incumbent - 0.01
    candidate[0] += 50
    assert not compare(candidate, incumbent).better


def test_chance_is_taken_for_a_gain_in_no_more_than_its_level_of_cases() -> None:
    generator = np.random.default_rng(3)
    wins = sum(compare(generator.normal(size=24), generator.normal(size=24)).better for _ in range(600))
    assert wins / 600 < 0.07


@pytest.mark.parametrize("samples", [3, 5, 12])
def test_few_samples_are_judged_by_students_t(samples: int) -> None:
    spread = np.linspace(-1, 1, samples)
    unit = spread.std(ddof=1) / math.sqrt(samples)
    for times, better in ((0.99, False), (1.01, True)):
        gain = times * stats.t.ppf(0.975, samples - 1) * unit
        found = compare(spread - gain, np.zeros(samples))
        assert found.samples == samples
        assert found.stderr == pytest.approx(unit)
        assert replace(found, ranks=1.0).better is better


def test_chance_wins_no_more_often_than_its_level_on_very_few_samples() -> None:
    generator = np.random.default_rng(4)
    wins = sum(compare(generator.normal(size=4), generator.normal(size=4)).better for _ in range(500))
    assert wins / 500 < 0.05
