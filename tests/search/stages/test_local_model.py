import math

import numpy as np
import pytest

from mpq.search.problem import Problem, build_groups
from mpq.search.stages.local_model import Local, Prices, prices_of
from mpq.search.study import Study
from tests.search.measuring import FakeMeasurerWithSlopes
from tests.search.stages.test_knobs import solved
from tests.small import random_table

TABLE = random_table(4, count=8)


def problem() -> Problem:
    groups = build_groups(TABLE)
    bare = Problem(groups, 0)
    return Problem(groups, int(bare.smallest + 0.4 * (bare.largest - bare.smallest)))


def local(found: Problem) -> tuple[Local, FakeMeasurerWithSlopes, float]:
    measurer, anchor = FakeMeasurerWithSlopes(TABLE), solved(found)
    error = float(measurer.calibration(found.schemes(anchor)).mean())
    return Local(found, anchor, error, prices_of(found, anchor, measurer.slopes(found.schemes(anchor)))), measurer, error


def neighbours(found: Problem, plan: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(*plan[:g], j, *plan[g + 1 :]) for g, group in enumerate(found.groups) for j in range(len(group.options)) if j != plan[g]]


def test_the_anchor_is_predicted_as_it_was_measured_and_its_options_cost_nothing() -> None:
    found = problem()
    model, _, error = local(found)
    assert model.predict(model.anchor) == error
    assert [row[taken] for row, taken in zip(model.expected(), model.anchor, strict=True)] == [0.0] * len(found.groups)
    assert (model.moved(model.anchor), model.moved(neighbours(found, model.anchor)[0])) == (0, 1)


def test_neighbours_are_predicted_better_than_by_the_table() -> None:
    found = problem()
    model, measurer, error = local(found)
    plans = neighbours(found, model.anchor)
    measured = np.array([float(measurer.calibration(found.schemes(plan)).mean()) for plan in plans])
    predicted = np.array([model.predict(plan) for plan in plans])
    alone = np.array([error + found.error(plan) - found.error(model.anchor) for plan in plans])
    assert np.abs(predicted - measured).mean() < 0.5 * np.abs(alone - measured).mean()


def test_a_measured_plan_is_predicted_nearer_to_its_measurement_afterwards_and_uncertainty_never_grows() -> None:
    found = problem()
    model, _, error = local(found)
    plan = neighbours(found, model.anchor)[0]
    before, spread = model.predict(plan), np.diag(model.covariance).copy()
    measured = error + 0.5 * (before - error)
    model.observe(plan, measured)
    assert abs(model.predict(plan) - measured) < abs(before - measured)
    assert (np.diag(model.covariance) <= spread + 1e-12).all()


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_error_that_is_not_finite_teaches_nothing(error: float) -> None:
    found = problem()
    model, _, _ = local(found)
    before = model.expected()
    model.observe(neighbours(found, model.anchor)[0], error)
    assert model.expected() == before


def test_a_draw_without_spread_is_what_is_expected() -> None:
    model, _, _ = local(problem())
    assert model.draw(np.random.default_rng(0), widened=0.0) == model.expected()
    assert model.draw(np.random.default_rng(0)) == model.draw(np.random.default_rng(0)) != model.expected()


def test_without_a_gradient_a_layer_keeps_the_figures_of_the_table() -> None:
    found = problem()
    measurer, anchor = FakeMeasurerWithSlopes(TABLE), solved(found)
    slopes = measurer.slopes(found.schemes(anchor))
    name = found.groups[2].layers[0].name
    for pair in [pair for pair in slopes.first if pair[0] == name]:
        del slopes.first[pair], slopes.second[pair]
    broken = next(pair for pair in slopes.first if pair[0] == found.groups[3].layers[0].name)
    slopes.first[broken][0] = math.nan
    expected = Local(found, anchor, 1.0, prices_of(found, anchor, slopes)).expected()
    taken = found.groups[2].options[anchor[2]].error
    assert expected[2] == pytest.approx([option.error - taken for option in found.groups[2].options])
    assert np.isfinite(expected[3]).all()


def test_prices_survive_in_a_study_to_the_bit() -> None:
    found = problem()
    measurer, anchor = FakeMeasurerWithSlopes(TABLE), solved(found)
    prices = prices_of(found, anchor, measurer.slopes(found.schemes(anchor)))
    study = Study(found, lambda _: [], seed=0, name="a")
    study.keep("slopes", prices.to_dict())
    assert Prices.from_dict(study.kept("slopes")) == prices
    assert study.kept("others") is None
