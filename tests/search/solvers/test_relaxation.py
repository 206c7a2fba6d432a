from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linprog

from mpq.search.solvers.relaxation import hull_of, relax
from tests.search.solvers.test_knapsack import layers_like, total


def undominated(costs: list[list[int]], errors: list[list[float]]) -> tuple[list[list[int]], list[list[float]]]:
    kept = [[j for j in range(len(row)) if j == 0 or row[j] < min(row[:j])] for row in errors]
    return (
        [[row[j] for j in options] for row, options in zip(costs, kept, strict=True)],
        [[row[j] for j in options] for row, options in zip(errors, kept, strict=True)],
    )


def linear_program(costs: list[list[int]], errors: list[list[float]], limit: int) -> float:
    """In units in which the figures are far above the solver's absolute tolerances."""
    groups = np.repeat(np.arange(len(costs)), [len(row) for row in costs])
    one_each = (groups[None, :] == np.arange(len(costs))[:, None]).astype(float)
    prices = np.array([float(cost) for row in costs for cost in row])
    objective = 1e9 * np.array([error for row in errors for error in row])
    found = linprog(objective, A_ub=prices[None, :], b_ub=[limit], A_eq=one_each, b_eq=np.ones(len(costs)), bounds=(0, 1))
    assert found.fun is not None
    return float(found.fun) / 1e9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_the_bound_is_the_optimum_of_the_linear_relaxation_and_the_choice_fits(seed: int, share: float) -> None:
    costs, errors = undominated(*layers_like(seed, 25, 6))
    low, high = sum(map(min, costs)), sum(map(max, costs))
    limit = int(low + share * (high - low))
    found = relax([np.array(row) for row in costs], [np.array(row) for row in errors], limit)
    assert found.bound == pytest.approx(linear_program(costs, errors, limit), rel=1e-6)
    assert total(costs, found.choice) <= limit
    assert found.bound <= total(errors, found.choice) * (1 + 1e-12)
    assert found.multiplier >= 0


@pytest.mark.parametrize("seed", range(4))
def test_no_single_step_still_fits(seed: int) -> None:
    costs, errors = undominated(*layers_like(seed, 25, 6))
    limit = int(1.7 * sum(map(min, costs)))
    choice = relax([np.array(row) for row in costs], [np.array(row) for row in errors], limit).choice
    room = limit - int(total(costs, choice))
    assert all(row[j + 1] - row[j] > room for row, j in zip(costs, choice, strict=True) if j + 1 < len(row))


@pytest.mark.parametrize("seed", range(4))
def test_the_corners_of_the_hull_are_where_the_linear_relaxation_is_a_whole_choice(seed: int) -> None:
    costs, errors = layers_like(seed, 12, 5)
    corners = hull_of(costs, errors)
    assert corners[0].cost == sum(map(min, costs))
    assert corners[-1].error == pytest.approx(sum(map(min, errors)))
    for corner in corners[:: max(1, len(corners) // 5)]:
        assert corner.cost == total(costs, corner.choice)
        assert corner.error == pytest.approx(total(errors, corner.choice))
        assert corner.error == pytest.approx(linear_program(costs, errors, corner.cost), rel=1e-6)
    assert all(a.cost < b.cost and a.error > b.error for a, b in pairwise(corners))
