import itertools
import math
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mpq.search.solvers.knapsack import Solution, solve

Costs = Sequence[Sequence[int]]
Errors = Sequence[Sequence[float]]
Problem = tuple[list[list[int]], list[list[float]], int]

ERRORS = {
    "whole": st.integers(-4, 12).map(float),
    "tenths": st.integers(-30, 90).map(lambda n: n / 10),
    "reals": st.floats(-1, 5, allow_nan=False, allow_subnormal=False),
    "wide": st.tuples(st.floats(1, 10), st.integers(-12, 9)).map(lambda pair: pair[0] * 10.0 ** pair[1]),
    "cancelling": st.sampled_from([-1e6, 1e6, 1e-3, -1e-3, 0.0]),
}


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    error = ERRORS[draw(st.sampled_from(sorted(ERRORS)))]
    cost = st.integers(0, draw(st.sampled_from([3, 12, 100])))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    costs = [draw(st.lists(cost, min_size=size, max_size=size)) for size in sizes]
    errors = [draw(st.lists(error, min_size=size, max_size=size)) for size in sizes]
    low, high = sum(map(min, costs)), sum(map(max, costs))
    return costs, errors, draw(st.integers(low - 1, high + 1))


def total(rows: Sequence[Sequence[float]], choice: Sequence[int]) -> float:
    return math.fsum(row[index] for row, index in zip(rows, choice, strict=True))


def brute_force(costs: Costs, errors: Errors, limit: int) -> float | None:
    feasible = (choice for choice in itertools.product(*(range(len(row)) for row in costs)) if total(costs, choice) <= limit)
    return min((total(errors, choice) for choice in feasible), default=None)


def check(solution: Solution, costs: Costs, errors: Errors, limit: int) -> None:
    assert total(costs, solution.choice) <= limit
    assert solution.error == total(errors, solution.choice)
    assert solution.bound <= solution.error


@settings(max_examples=300, deadline=None)
@given(problems())
@example(([[0, 1], [0, 1]], [[0.0, 0.0], [0.0, 0.0]], 1))
@example(([[1, 1, 1], [2, 2]], [[3.0, 1.0, 1.0], [5.0, 5.0]], 3))
@example(([[0, 3], [0, 3]], [[1.0, -1.0], [-1.0, -3.0]], 3))
@example(([[0, 5]], [[1.0, 0.0]], 4))
def test_the_solution_is_that_of_brute_force(problem: Problem) -> None:
    costs, errors, limit = problem
    solution, best = solve(costs, errors, limit), brute_force(costs, errors, limit)
    if best is None:
        assert solution is None
        return
    assert solution is not None
    check(solution, costs, errors, limit)
    room = 1e-11 * max(1e-280, sum(max(map(abs, row)) for row in errors))
    assert solution.error <= best + room
    assert solution.bound <= best + room
    assert solution.gap <= 1e-9


def by_milp(costs: Costs, errors: Errors, limit: int) -> tuple[float, float]:
    """(error, proven bound) by a general solver."""
    groups = np.repeat(np.arange(len(costs)), [len(row) for row in costs])
    count = len(groups)
    one_each = LinearConstraint(csr_array((np.ones(count), (groups, np.arange(count)))), 1, 1)
    within = LinearConstraint(np.concatenate([np.array(row, dtype=float) for row in costs])[None, :], -np.inf, limit)
    objective = np.concatenate([np.array(row) for row in errors])
    found = milp(
        objective,
        integrality=np.ones(count, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[one_each, within],
        options={"mip_rel_gap": 0},
    )
    assert found.success
    return float(found.fun), float(found.mip_dual_bound)


def layers_like(seed: int, groups: int, options: int) -> tuple[list[list[int]], list[list[float]]]:
    """Sizes and errors as networks have them: both over orders of magnitude, errors falling with the cost, with noise."""
    generator = np.random.default_rng(seed)
    weights = np.round(2 ** generator.uniform(6, 20, groups)).astype(int)
    bits = np.linspace(2, 16, options)
    scale = generator.lognormal(-6, 2, groups)
    costs = [[int(weight * b / 8) + 40 for b in bits] for weight in weights]
    errors = [[float(s * 4.0 ** -(b - 2) * generator.lognormal(0, 0.4)) for b in bits] for s in scale]
    return costs, errors


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_the_solution_is_that_of_a_general_solver(seed: int, share: float) -> None:
    costs, errors = layers_like(seed, 40, 6)
    low, high = sum(map(min, costs)), sum(map(max, costs))
    limit = int(low + share * (high - low))
    solution = solve(costs, errors, limit)
    assert solution is not None
    check(solution, costs, errors, limit)
    expected, bound = by_milp(costs, errors, limit)
    assert solution.error <= expected * (1 + 1e-9)
    assert solution.error >= bound * (1 - 1e-6) - 1e-6  # the other solver's own tolerances
    assert solution.gap == 0.0


@pytest.mark.parametrize("exponent", [-1040, -300, 300, 900, 996])
def test_errors_of_any_size_give_the_same_choice(exponent: int) -> None:
    """Times a power of two, nothing is rounded: the choice, the error and the bound are the same."""
    costs, errors = layers_like(4, 12, 5)
    errors = [[math.ldexp(round(math.ldexp(error, 20)), -20) for error in row] for row in errors]  # few digits: exact as denormals
    limit = int(0.6 * sum(map(min, costs)) + 0.4 * sum(map(max, costs)))
    plain = solve(costs, errors, limit)
    scaled = solve(costs, [[math.ldexp(error, exponent) for error in row] for row in errors], limit)
    assert plain is not None
    assert scaled is not None
    assert scaled.choice == plain.choice
    assert scaled.error == math.ldexp(plain.error, exponent)
    assert scaled.gap == plain.gap == 0.0


def test_errors_of_1e300_beside_small_ones_are_chosen_by_their_sum() -> None:
    solution = solve([[1, 2, 4]] * 3, [[1e300, 0.1, 0.001]] * 3, 8)
    assert solution is not None
    assert sorted(solution.choice) == [1, 1, 2]
    assert solution.error == math.fsum([0.1, 0.1, 0.001])
    assert solve([[1, 2]] * 3, [[1e300, 5e-324]] * 3, 5).error == 1e300  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.05, 0.7])
def test_ten_thousand_layers_with_eight_options_are_solved_to_optimality_in_seconds(share: float) -> None:
    costs, errors = layers_like(2, 10_000, 8)
    low, high = sum(map(min, costs)), sum(map(max, costs))
    limit = int(low + share * (high - low))
    started = time.process_time()
    solution = solve(costs, errors, limit)
    assert time.process_time() - started < 5
    assert solution is not None
    check(solution, costs, errors, limit)
    assert solution.gap == 0.0


def test_one_huge_layer_among_thousands_of_small_ones_takes_seconds() -> None:
    costs, errors = layers_like(2, 2_000, 8)
    costs.append([10**9 * bits for bits in range(1, 9)])
    errors.append([1e9 / 4.0**bits for bits in range(8)])
    limit = sum(map(min, costs)) + 3 * 10**8
    started = time.process_time()
    solution = solve(costs, errors, limit)
    assert time.process_time() - started < 5
    assert solution is not None
    check(solution, costs, errors, limit)


def test_twins_by_the_hundred_do_not_explode() -> None:
    costs, errors = [[10, 20, 40, 80]] * 300, [[1.0, 0.5, 0.2, 0.0]] * 300
    solution = solve(costs, errors, 300 * 33 + 7)
    assert solution is not None
    check(solution, costs, errors, 300 * 33 + 7)
    assert solution.gap < 0.01


def test_a_limit_below_the_smallest_choice_has_no_solution() -> None:
    assert solve([[2, 3], [4]], [[1.0, 0.0], [1.0]], 5) is None
    assert solve([[2, 3], [4]], [[1.0, 0.0], [1.0]], 6) == Solution((0, 0), 2.0, 2.0)


def test_with_room_for_everything_the_best_options_are_taken_the_cheapest_among_equals() -> None:
    assert solve([[1, 9, 5], [4, 2]], [[3.0, 1.0, 1.0], [0.0, 0.0]], 100) == Solution((2, 1), 1.0, 1.0)


def test_when_memory_is_short_the_proven_gap_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["mpq.search.solvers.knapsack"], "MOST_PAIRS", 200)
    costs, errors = layers_like(3, 60, 6)
    limit = int(1.3 * sum(map(min, costs)))
    solution = solve(costs, errors, limit)
    assert solution is not None
    check(solution, costs, errors, limit)
    expected, _ = by_milp(costs, errors, limit)
    assert solution.bound <= expected * (1 + 1e-9)
    assert 0 < solution.gap < 0.2
