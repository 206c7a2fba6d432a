import pytest

from mpq.errors import BudgetError
from mpq.search.quality import Loss, QualityLimit, halves, held_out_limit
from mpq.search.smallest import search_smallest
from tests.search.measuring import FakeMeasurer
from tests.small import random_table

TABLE = random_table(3, count=8)


def test_the_smallest_plan_keeps_the_error_and_a_tighter_error_takes_more_bytes() -> None:
    sizes = []
    for limit in (20.0, 8.0, 3.0):
        found = search_smallest(TABLE, [held_out_limit(limit)], measurer=FakeMeasurer(TABLE), trials=0)
        assert found.plan.evidence["measured"]["held_out"] <= limit
        sizes.append(found.plan.size.layer_bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_an_error_below_that_of_the_largest_plan_is_refused() -> None:
    with pytest.raises(
        BudgetError, match=r"^no plan has a held-out error of at most 1e-30: the largest one has .*; add candidates with more bits$"
    ):
        search_smallest(TABLE, [held_out_limit(1e-30)], measurer=FakeMeasurer(TABLE), trials=0)


def test_a_loss_of_the_users_own_is_kept_with_few_bytes() -> None:
    sizes = []
    for most in (0.5, 0.2, 0.05):
        found = search_smallest(
            TABLE,
            [QualityLimit("drop", most, lambda result: 4 / result.plan.size.effective_bits - 0.3)],
            measurer=FakeMeasurer(TABLE),
            trials=0,
        )
        assert found.plan.evidence["asked"] == {"name": "drop", "value": found.plan.evidence["asked"]["value"], "most": most}
        assert most / 2 <= found.plan.evidence["asked"]["value"] <= most
        sizes.append(found.plan.size.layer_bytes)
    assert sizes == sorted(sizes)


def test_a_metric_that_loses_nothing_gives_the_smallest_plan() -> None:
    found = search_smallest(TABLE, [QualityLimit("drop", 0.0, lambda _: -0.01)], measurer=FakeMeasurer(TABLE), trials=0)
    smallest = search_smallest(TABLE, [held_out_limit(1e9)], measurer=FakeMeasurer(TABLE), trials=0)
    assert found.plan.size.effective_bits < 1.01 * smallest.plan.size.effective_bits


def test_a_judge_on_other_samples_decides_among_the_plans_that_seemed_small_enough() -> None:
    def loss(factor: float) -> Loss:
        return lambda result: factor * (4 / result.plan.size.effective_bits - 0.3)

    lenient = search_smallest(TABLE, [QualityLimit("drop", 0.2, loss(1.0))], measurer=FakeMeasurer(TABLE), trials=0)
    strict = search_smallest(TABLE, [QualityLimit("drop", 0.2, loss(1.0), loss(1.3))], measurer=FakeMeasurer(TABLE), trials=0)
    assert strict.plan.size.layer_bytes > lenient.plan.size.layer_bytes
    assert strict.plan.evidence["asked"]["value"] == pytest.approx(1.3 * (4 / strict.plan.size.effective_bits - 0.3), rel=1e-3)
    assert strict.plan.evidence["asked"]["value"] <= 0.2
    with pytest.raises(BudgetError, match=r"^no plan has a drop of at most 0.2: the largest one has "):
        search_smallest(TABLE, [QualityLimit("drop", 0.2, loss(1.0), lambda _: 1.0)], measurer=FakeMeasurer(TABLE), trials=0)


def test_figures_are_split_in_random_halves_where_there_are_enough() -> None:
    steering, deciding = halves(101, seed=3)
    assert deciding is not None
    assert sorted([*steering, *deciding]) == list(range(101))
    assert abs(len(steering) - len(deciding)) <= 1
    assert halves(101, seed=3)[0].tolist() == steering.tolist() != halves(101, seed=4)[0].tolist()
    assert halves(1, seed=3)[1] is None
