import math

import numpy as np
import pytest
from scipy import stats

from mpq.evidence.posterior import Evidence, posterior, samples_to_tell

RNG = np.random.default_rng(0)
HARD = RNG.lognormal(-6, 1.5, 128)  # what makes a sample hard for every plan


def plan(factor: float, predicted: float, *, noise: float = 0.2, tuned: bool = False, seed: int = 1) -> Evidence:
    errors = HARD * factor * np.random.default_rng(seed).lognormal(0, noise, 128)
    return Evidence(predicted, errors[:96], errors[96:], tuned)


def test_a_plan_that_all_evidence_favours_is_better_with_near_certainty() -> None:
    found = posterior([plan(0.3, 0.3), plan(1.0, 1.0, seed=2)], spread=0.3)
    assert found.expected[0] < 0.5 * found.expected[1]
    assert found.probability(0, 1) > 0.999
    assert found.probability(0, 1) + found.probability(1, 0) == pytest.approx(1)


def test_few_held_out_samples_do_not_overrule_prediction_and_calibration() -> None:
    better, worse = plan(0.3, 0.3), plan(1.0, 1.0, seed=2)
    unlucky = Evidence(better.predicted, better.calibration, np.append(better.held_out[:3], worse.held_out[:4].sum() * 2))
    found = posterior([unlucky, Evidence(worse.predicted, worse.calibration, worse.held_out[:4])], spread=0.3)
    assert unlucky.held_out.mean() > worse.held_out[:4].mean()
    assert found.expected[0] < found.expected[1]


def test_many_held_out_samples_overrule_a_wrong_prediction() -> None:
    found = posterior([plan(2.0, 0.5), plan(1.0, 1.0, seed=2)], spread=0.5)
    assert found.expected[0] > 1.5 * found.expected[1]


def test_a_factor_that_all_predictions_share_changes_nothing() -> None:
    plans = [plan(0.5, 0.5), plan(1.0, 1.0, seed=2), plan(0.8, 0.7, seed=3)]
    scaled = [Evidence(100 * each.predicted, each.calibration, each.held_out) for each in plans]
    assert np.allclose(posterior(plans, spread=0.3).mean, posterior(scaled, spread=0.3).mean)


def test_the_uncertainty_of_two_plans_on_the_same_samples_is_shared() -> None:
    found = posterior([plan(1.0, 1.0), plan(0.9, 0.9, seed=2)], spread=0.3)
    alone = math.sqrt(found.covariance[0, 0])
    apart = math.sqrt(found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1])
    assert apart < alone


def test_tuning_on_the_calibration_samples_earns_doubt() -> None:
    other = plan(1.0, 1.0, noise=0.6)
    plain, tuned = (posterior([other, plan(0.9, 0.9, noise=0.6, seed=2, tuned=flag)], spread=0.3) for flag in (False, True))
    assert tuned.mean[1] - tuned.mean[0] > plain.mean[1] - plain.mean[0]
    assert tuned.probability(1, 0) < plain.probability(1, 0)


def test_a_spread_that_the_self_check_found_small_gives_the_prediction_more_weight() -> None:
    plans = [plan(1.0, 0.5), plan(1.0, 1.0, seed=2)]
    sure, doubtful = posterior(plans, spread=0.1), posterior(plans, spread=2.0)
    assert sure.mean[0] - sure.mean[1] < doubtful.mean[0] - doubtful.mean[1]


def test_errors_of_zero_and_single_samples_are_no_obstacle() -> None:
    nothing = Evidence(0.0, np.zeros(4), np.zeros(2))
    found = posterior([nothing, Evidence(1.0, np.ones(4), np.ones(2))])
    assert np.isfinite(found.expected).all()
    assert found.probability(0, 1) > 0.999
    single = posterior([Evidence(0.5, np.array([0.5]), np.array([0.4])), Evidence(1.0, np.array([1.0]), np.array([1.1]))])
    assert single.expected[0] < single.expected[1]
    same = posterior([nothing, nothing])
    assert same.probability(0, 1) == pytest.approx(0.5)


def test_probabilities_are_calibrated() -> None:
    """Of plans said to be better with a probability, about that share is."""
    generator = np.random.default_rng(4)
    said, right = [], []
    for _ in range(300):
        truth = generator.normal(0, 0.4, 2)
        errors = [math.exp(t) * generator.lognormal(-0.5, 1.0, 48) for t in truth]
        predicted = [math.exp(t + generator.normal(0, 0.5)) for t in truth]
        found = posterior([Evidence(p, e[:32], e[32:]) for p, e in zip(predicted, errors, strict=True)], spread=0.5)
        chance = found.probability(0, 1)
        said.append(max(chance, 1 - chance))
        right.append((truth[0] < truth[1]) == (chance > 0.5))
    assert np.mean(right) == pytest.approx(np.mean(said), abs=0.06)


def test_the_samples_that_would_tell_follow_from_the_differences() -> None:
    worse = np.array([1.0, 1.2, 0.9, 1.3])
    better = worse - np.array([0.1, -0.2, 0.3, 0.0])
    difference = worse - better
    found, ratio = samples_to_tell(better, worse), difference.std(ddof=1) / difference.mean()
    assert found is not None
    assert [(stats.t.ppf(0.975, count - 1) * ratio) ** 2 <= count for count in (found - 1, found)] == [False, True]
    assert samples_to_tell(worse - 0.5, worse) is None
    assert samples_to_tell(worse, better) is None
    assert samples_to_tell(np.array([0.0, 0.0]), np.array([1e-300, 1e300])) is None  # a spread too large to square
