import math

import numpy as np
import pytest

from mpq.search.problem import Problem, build_groups
from mpq.search.stages.beliefs import Beliefs
from tests.small import random_table


def problem(seed: int = 0) -> Problem:
    groups = build_groups(random_table(seed, count=8))
    return Problem(groups, Problem(groups, 0).largest)


def smallest(found: Problem) -> tuple[int, ...]:
    return (0,) * len(found.groups)


def test_before_any_measurement_the_table_is_believed() -> None:
    found = problem()
    expected = [[option.error for option in group.options] for group in found.groups]
    assert Beliefs(found).expected() == [pytest.approx(errors) for errors in expected]
    assert Beliefs(found).predict(smallest(found)) == pytest.approx(found.error(smallest(found)))


def test_a_measured_plan_is_predicted_nearly_as_measured_afterwards() -> None:
    found = problem()
    beliefs = Beliefs(found)
    measured = 2.0 * found.error(smallest(found))
    beliefs.observe(smallest(found), measured)
    assert beliefs.predict(smallest(found)) == pytest.approx(measured, rel=0.25)


def test_plans_that_differ_in_one_group_teach_about_that_group() -> None:
    found = problem()
    beliefs, plan = Beliefs(found), smallest(found)
    true = np.ones(len(found.groups))
    true[3] = 4.0  # this group matters four times as much as the table says
    generator = np.random.default_rng(0)
    for _ in range(60):
        plan = tuple(int(generator.integers(len(group.options))) for group in found.groups)
        beliefs.observe(plan, sum(w * g.options[i].error for w, g, i in zip(true, found.groups, plan, strict=True)))
    learned = [math.log(errors[0] / group.options[0].error) for errors, group in zip(beliefs.expected(), found.groups, strict=True)]
    assert int(np.argmax(learned)) == 3


def test_uncertainty_never_grows_with_a_measurement() -> None:
    found = problem()
    beliefs = Beliefs(found)
    before = np.diag(beliefs.covariance).copy()
    beliefs.observe(smallest(found), 1.0)
    assert (np.diag(beliefs.covariance) <= before + 1e-12).all()


@pytest.mark.parametrize("error", [math.inf, math.nan, 0.0, -1.0])
def test_an_error_that_is_not_positive_and_finite_teaches_nothing(error: float) -> None:
    found = problem()
    beliefs = Beliefs(found)
    beliefs.observe(smallest(found), error)
    assert (beliefs.mean == 0).all()


def test_draws_repeat_with_their_seed_and_differ_between_seeds() -> None:
    beliefs = Beliefs(problem())
    assert beliefs.draw(np.random.default_rng(1)) == beliefs.draw(np.random.default_rng(1))
    assert beliefs.draw(np.random.default_rng(1)) != beliefs.draw(np.random.default_rng(2))
