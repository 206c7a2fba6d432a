from collections.abc import Sequence

import numpy as np
import optuna
import pytest

from mpq.search.problem import Problem, build_groups
from mpq.search.stages.base import Turn
from mpq.search.stages.draws import drawn, normal
from mpq.search.study import Measured
from tests.small import random_table

GROUPS = build_groups(random_table(2, count=4))
PROBLEM = Problem(GROUPS, Problem(GROUPS, 0).largest - 1)


class Widths:
    """Draws the table itself at width 0 and noise of the width else; `asked` are the widths."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def draw(self, generator: np.random.Generator, *, widened: float = 1.0) -> Sequence[Sequence[float]]:
        self.asked.append(widened)
        return [[option.error * float(np.exp(3 * widened * generator.standard_normal())) for option in group.options] for group in GROUPS]


def turn(*known: tuple[int, ...]) -> Turn:
    start = (0,) * len(GROUPS)
    return Turn(0, Measured(start, np.ones(2), "exact"), np.random.default_rng(0), {*known}, [], [])


def test_normal_draws_have_the_covariance_that_was_asked_for() -> None:
    covariance = np.array([[2.0, 0.9], [0.9, 0.5]])
    generator = np.random.default_rng(0)
    found = np.cov(np.stack([normal(covariance, generator) for _ in range(20_000)]).T)
    assert found == pytest.approx(covariance, rel=0.05)


def test_the_likeliest_plan_is_that_of_the_mean_and_known_plans_are_drawn_again_wider() -> None:
    solution, model, trial = PROBLEM.solve(), Widths(), optuna.create_study().ask()
    assert solution is not None
    first = drawn(PROBLEM, model, turn(), likeliest=True)
    assert first is not None
    assert (first.choose(trial), model.asked) == (solution.choice, [0.0])
    again = drawn(PROBLEM, model, turn(solution.choice), likeliest=True)
    assert again is not None
    assert again.choose(trial) != solution.choice
    assert model.asked[1:3] == [0.0, 1.25]


def test_a_stage_ends_when_all_draws_are_known() -> None:
    class Same(Widths):
        def draw(self, generator: np.random.Generator, *, widened: float = 1.0) -> Sequence[Sequence[float]]:
            return [[option.error for option in group.options] for group in GROUPS]

    solution = PROBLEM.solve()
    assert solution is not None
    assert drawn(PROBLEM, Same(), turn(solution.choice)) is None
