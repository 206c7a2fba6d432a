import numpy as np
import pytest

from mpq.search.polish import describe, polish, propose
from mpq.search.problem import Problem, build_groups
from mpq.search.study import Measured, Study
from tests.search.measuring import FakeMeasurer
from tests.search.test_knobs import solved
from tests.small import linear, random_table, table


def problem(seed: int, share: float = 0.4) -> Problem:
    groups = build_groups(random_table(seed, count=8))
    bare = Problem(groups, 0)
    return Problem(groups, int(bare.smallest + share * (bare.largest - bare.smallest)))


@pytest.mark.parametrize("seed", range(4))
def test_a_neighbour_is_within_the_limit_new_and_differs_in_at_most_two_groups(seed: int) -> None:
    found = problem(seed)
    start = solved(found)
    tried = {start}
    for number in range(40):
        neighbour = propose(found, start, tried, np.random.default_rng(number))
        if neighbour is None:
            break
        assert neighbour not in tried
        assert found.cost(neighbour) <= found.limit
        assert 1 <= sum(a != b for a, b in zip(neighbour, start, strict=True)) <= 2
        tried.add(neighbour)
    assert len(tried) > 5


def test_when_every_neighbour_was_tried_there_is_none() -> None:
    found = Problem(build_groups(table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}})), 10**6)
    assert propose(found, (0,), {(0,)}, np.random.default_rng(0)) == (1,)
    assert propose(found, (0,), {(0,), (1,)}, np.random.default_rng(0)) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_polished_plan_is_never_worse_on_calibration_and_within_the_limit(seed: int) -> None:
    found = problem(seed)
    measurer = FakeMeasurer(random_table(seed, count=8))
    study = Study(found, measurer.calibration, seed=0, name="a")
    start = study.trial("exact", lambda _: solved(found))
    seen: list[Measured] = []
    best = polish(study, start, trials=20, stop=lambda: False, on_trial=seen.append)
    assert best.mean <= start.mean
    assert found.cost(best.choice) <= found.limit
    assert len(seen) == len(study.stage("swap")) <= 20
    assert len({each.choice for each in seen}) == len(seen)


def test_no_trial_is_begun_after_stop() -> None:
    found = problem(0)
    study = Study(found, FakeMeasurer(random_table(0, count=8)).calibration, seed=0, name="a")
    start = study.trial("exact", lambda _: solved(found))
    assert polish(study, start, trials=20, stop=lambda: True, on_trial=lambda _: None) is start
    assert study.measurements == 1


def test_a_swap_is_described_for_people() -> None:
    layers = [linear("a", 4, 64), linear("b", 4, 64)]
    found = Problem(build_groups(table(layers, {name: {"int4": 1.0, "int8": 0.5} for name in "ab"})), 10**6)
    assert describe(found, (0, 1), (1, 0)) == "a int4 -> int8, b int8 -> int4"
