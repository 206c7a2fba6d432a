import numpy as np
import pytest

from mpq.search.problem import Problem, build_groups
from mpq.search.stages.swaps import describe, propose
from tests.search.stages.test_knobs import solved
from tests.small import linear, random_table, table


def predicted(found: Problem) -> list[list[float]]:
    return [[option.error for option in group.options] for group in found.groups]


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
        neighbour = propose(found, start, tried, np.random.default_rng(number), predicted(found))
        if neighbour is None:
            break
        assert neighbour not in tried
        assert found.cost(neighbour) <= found.limit
        assert 1 <= sum(a != b for a, b in zip(neighbour, start, strict=True)) <= 2
        tried.add(neighbour)
    assert len(tried) > 5


def test_when_every_neighbour_was_tried_there_is_none() -> None:
    found = Problem(build_groups(table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}})), 10**6)
    assert propose(found, (0,), {(0,)}, np.random.default_rng(0), predicted(found)) == (1,)
    assert propose(found, (0,), {(0,), (1,)}, np.random.default_rng(0), predicted(found)) is None


def test_a_swap_is_described_for_people() -> None:
    layers = [linear("a", 4, 64), linear("b", 4, 64)]
    found = Problem(build_groups(table(layers, {name: {"int4": 1.0, "int8": 0.5} for name in "ab"})), 10**6)
    assert describe(found, (0, 1), (1, 0)) == "a int4 -> int8, b int8 -> int4"


def test_of_many_changes_a_few_are_named_and_the_others_counted() -> None:
    found = Problem(build_groups(random_table(0, count=9)), 10**9)
    text = describe(found, (0,) * 9, (1,) * 9)
    assert (text.count("->"), text.endswith(", and 5 more layers")) == (4, True)
    assert describe(found, (0,) * 9, (1,) * 5 + (0,) * 4).count("->") == 5
