import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from mpq.search.solvers.knapsack import solve
from mpq.search.solvers.several_limits import solve_several


def random_problem(seed: int, *, groups: int, options: int = 3) -> tuple[list[list[int]], list[list[float]], list[list[float]]]:
    random = np.random.default_rng(seed)
    sizes = [sorted(int(size) for size in random.integers(1, 200, options)) for _ in range(groups)]
    times = [[float(time) for time in random.uniform(0, 3, options)] for _ in range(groups)]
    errors = [sorted((float(error) for error in random.lognormal(-8, 2, options)), reverse=True) for _ in range(groups)]
    return sizes, times, errors


def total(rows: Sequence[Sequence[float]], choice: tuple[int, ...]) -> float:
    return math.fsum(row[index] for row, index in zip(rows, choice, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all_that_keep_both_limits(seed: int) -> None:
    sizes, times, errors = random_problem(seed, groups=6)
    every = list(itertools.product(range(3), repeat=6))
    most_size = sorted(total(sizes, choice) for choice in every)[len(every) // 3]
    most_time = sorted(total(times, choice) for choice in every)[len(every) // 3]
    fitting = [choice for choice in every if total(sizes, choice) <= most_size and total(times, choice) <= most_time]
    found = solve_several([sizes, times], errors, [most_size, most_time])
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert found.choice in fitting
    least = min(total(errors, choice) for choice in fitting)
    assert found.error == pytest.approx(least, rel=1e-5)
    assert found.gap <= 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_one_limit_gives_what_the_exact_solver_gives(seed: int) -> None:
    sizes, _, errors = random_problem(seed, groups=60, options=8)
    limit = sum(map(min, sizes)) + (sum(map(max, sizes)) - sum(map(min, sizes))) // 3
    alone, together = solve(sizes, errors, limit), solve_several([sizes], errors, [limit])
    assert alone is not None
    assert together is not None
    assert together.error == pytest.approx(alone.error, rel=1e-5)


def test_limits_that_can_only_be_kept_one_at_a_time_give_nothing() -> None:
    assert solve_several([[[1, 9]], [[9, 1]]], [[1.0, 1.0]], [5, 5]) is None
    assert solve_several([[[1, 5]], [[9, 5]]], [[1.0, 1.0]], [5, 5]) is not None
