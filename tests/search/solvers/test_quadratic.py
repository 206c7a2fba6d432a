import itertools

import numpy as np
import pytest

from mpq.evidence.prediction import interactions
from mpq.records.sensitivity import Sensitivity, layer_bytes
from mpq.search.problem import Problem, build_groups
from mpq.search.solvers import quadratic
from mpq.search.solvers.quadratic import minimise
from tests.search.stages.test_knobs import solved
from tests.small import linear, table

TEXTS = ("int2", "int4", "int8")


def correlated_table(seed: int, *, count: int = 6, draws: int = 400) -> Sensitivity:
    """Layers whose effects share a common part, each with a sign of its own."""
    random = np.random.default_rng(seed)
    layers = [linear(f"layer{number}", int(random.integers(2, 12)), 64) for number in range(count)]
    common = random.standard_normal(draws)
    products = {}
    for layer in layers:
        sign, size = random.choice([-1, 1]), random.lognormal(0, 1)
        for text, scale in zip(TEXTS, (1.0, 0.3, 0.02), strict=True):
            products[layer.name, text] = size * scale * (sign * 0.8 * common + 0.6 * random.standard_normal(draws))
    errors = {layer.name: {text: np.square(products[layer.name, text]).tolist() for text in TEXTS} for layer in layers}
    found = table(layers, errors)
    found.products = {(name, scheme): products[name, str(scheme)] for name in errors for scheme in found.header.candidates[name]}
    return found


def problem_of(found: Sensitivity, share: float = 0.4) -> Problem:
    groups = build_groups(found)
    free = Problem(groups, 0)
    return Problem(groups, int(free.smallest + share * (free.largest - free.smallest)))


@pytest.mark.parametrize("seed", range(8))
def test_the_plan_is_near_the_best_of_all_and_the_bound_below_it(seed: int) -> None:
    found = correlated_table(seed)
    problem = problem_of(found)
    start = solved(problem)
    result = minimise(problem, found, start)
    assert result is not None
    assert problem.cost(result.choice) <= problem.limit
    assert result.error == pytest.approx(interactions(found, problem.schemes(result.choice)))
    feasible = [c for c in itertools.product(range(3), repeat=len(problem.groups)) if problem.cost(c) <= problem.limit]
    errors = [interactions(found, problem.schemes(choice)) or 0.0 for choice in feasible]
    assert result.bound <= min(errors) * (1 + 1e-9)
    assert result.error <= (interactions(found, problem.schemes(start)) or 0.0) * (1 + 1e-9)
    assert result.error <= 1.1 * min(errors)


def test_interactions_change_the_plan() -> None:
    changed = 0
    for seed in range(8):
        found = correlated_table(seed)
        problem = problem_of(found)
        result = minimise(problem, found, solved(problem))
        assert result is not None
        changed += result.choice != solved(problem)
    assert changed >= 4


def test_tables_without_signed_figures_and_huge_problems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = correlated_table(0)
    problem = problem_of(found)
    start = solved(problem)
    with monkeypatch.context() as patched:
        patched.setattr(quadratic, "MOST_OPTIONS", 17)
        assert minimise(problem, found, start) is None
    found.products.clear()
    assert minimise(problem, found, start) is None


def test_a_single_group_has_no_interactions() -> None:
    found = correlated_table(0, count=1)
    problem = problem_of(found)
    result = minimise(problem, found, solved(problem))
    assert result is not None
    assert result.choice == solved(problem)
    assert result.error == pytest.approx(result.bound)
    assert layer_bytes(found.layers, problem.schemes(result.choice)) <= problem.limit
