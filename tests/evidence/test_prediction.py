import math

import numpy as np
import pytest

from mpq.evidence.prediction import additive, covariances, interactions, quality, rank_correlation
from mpq.formats.scheme import parse_scheme
from mpq.records.sensitivity import Sensitivity
from tests.small import linear, table

INT4 = parse_scheme("int4")


def correlated(draws: int, *, share: float, seed: int = 0) -> Sensitivity:
    """Three layers; the first two have the correlation `share`, the third has none with them."""
    random = np.random.default_rng(seed).standard_normal((3, draws))
    figures = {"a": random[0], "b": share * random[0] + math.sqrt(1 - share**2) * random[1], "c": random[2]}
    found = table([linear(name, 4, 64) for name in figures], {name: {"int4": np.square(v).tolist()} for name, v in figures.items()})
    found.products = {(name, INT4): values for name, values in figures.items()}
    return found


@pytest.mark.parametrize("share", [0.7, -0.7])
def test_correlated_layers_add_up_or_cancel(share: float) -> None:
    found = correlated(4000, share=share)
    plan = dict.fromkeys(("a", "b"), INT4)
    together = interactions(found, plan)
    assert together is not None
    assert together - additive(found, plan) == pytest.approx(2 * share, abs=0.1)


def test_interactions_that_are_noise_change_predictions_by_little() -> None:
    plan = dict.fromkeys(("a", "c"), INT4)
    tables = [correlated(64, share=0.0, seed=seed) for seed in range(100)]
    changes = [(interactions(found, plan) or 0.0) - additive(found, plan) for found in tables]
    raw = [2 * float((found.products["a", INT4] * found.products["c", INT4]).mean()) for found in tables]
    assert np.std(changes) < 0.5 * np.std(raw)
    assert sum(change == 0 for change in changes) > 30


def test_interactions_are_scaled_to_the_errors_of_the_pairs() -> None:
    found = correlated(4000, share=0.7)
    found.errors = {key: 4 * errors for key, errors in found.errors.items()}
    plan = dict.fromkeys(("a", "b"), INT4)
    assert (interactions(found, plan) or 0.0) - additive(found, plan) == pytest.approx(8 * 0.7, abs=0.4)


def test_layers_without_signed_figures_have_no_interactions() -> None:
    found = correlated(8, share=0.5)
    del found.products["b", INT4]
    assert interactions(found, dict.fromkeys(("a", "b"), INT4)) is None
    assert interactions(found, {}) is None


def test_covariances_are_symmetric_and_zero_within_a_group() -> None:
    rows = np.random.default_rng(0).standard_normal((1, 700)) + 0.1 * np.random.default_rng(1).standard_normal((600, 700))
    found = np.concatenate(list(covariances(rows, np.ones(600), np.arange(600) // 2, 1.0)))
    assert found.shape == (600, 600)
    assert np.allclose(found, found.T)
    assert not found[0, :2].any()
    assert not found[599, 598:].any()
    assert np.all(found[0, 2:] > 0.8)


def test_the_rank_correlation_of_one_pair_is_one() -> None:
    assert rank_correlation([1.0, 2.0, 9.0], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 2.0, 9.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert rank_correlation([1.0], [5.0]) == 1.0


def test_quality_knows_a_perfect_prediction_and_a_constant_factor() -> None:
    measured = [0.1, 0.2, 0.4, 0.8]
    assert quality(measured, measured).to_dict() == {"rank": 1.0, "bias": 0.0, "spread": 0.0}
    assert quality([2 * value for value in measured], measured).bias == pytest.approx(math.log(2))
    assert quality(measured[::-1], measured).rank == pytest.approx(-1)
    assert math.isnan(quality([0.1, math.inf], [0.1, 0.2]).rank)
