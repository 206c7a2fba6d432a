from collections.abc import Mapping

import numpy as np
import pytest

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.errors import BudgetError, UsageError
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors
from mpq.search.quality import QualityLimit, drop_limit, held_out_limit, read_drop
from mpq.search.run import SearchResult, search
from mpq.search.smallest import search_smallest, search_within
from tests.search.measuring import FakeMeasurer
from tests.small import random_table

TABLE = random_table(3, count=8)
NONE = SearchSettings(trials=0)


def size_loss(result: SearchResult) -> float:
    """A metric of its own: the fewer bits, the more is lost."""
    return 4 / result.plan.size.effective_bits - 0.3


def accuracy(bits: Mapping[str, Scheme], count: int) -> Errors:
    return np.full(count, 0.8 if not bits else 0.8 - 1 / min(scheme.bits for scheme in bits.values()))


@pytest.mark.parametrize(
    ("text", "reference", "expected"), [("0.5%", 0.8, 0.004), ("0.005", 0.8, 0.005), ("2%", -3.0, 0.06), ("0", 1.0, 0.0)]
)
def test_a_drop_is_an_amount_or_a_share_of_the_reference(text: str, reference: float, expected: float) -> None:
    assert read_drop(text).of(reference) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["2x", "-1", "-1%", "nan"])
def test_a_drop_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^--max-drop '{text}' is "):
        read_drop(text)


def test_of_many_values_half_steer_and_half_judge() -> None:
    limit, told = drop_limit(lambda bits, _: accuracy(bits, 40), read_drop("50%"), name="accuracy", seed=0)
    assert limit.judge is not None
    assert limit.most == pytest.approx(0.4)
    assert told == "accuracy of at least 0.4 (the model has 0.8); half of its 40 values guide the search, the others decide"
    found = search_smallest(TABLE, [limit], measurer=FakeMeasurer(TABLE), trials=0)
    assert limit.loss(found) == pytest.approx(limit.judge(found)) == pytest.approx(found.plan.evidence["asked"]["value"], rel=1e-3)


def test_one_value_steers_and_decides() -> None:
    limit, told = drop_limit(lambda bits, _: accuracy(bits, 1), read_drop("50%"), name="accuracy", seed=0)
    assert limit.judge is None
    assert "; it returns one number, which guides the search and decides" in told


def test_a_metric_that_changes_its_length_is_refused() -> None:
    limit, _ = drop_limit(lambda bits, _: accuracy(bits, 3 if bits else 2), read_drop("50%"), name="accuracy", seed=0)
    with pytest.raises(UsageError, match=r"^the metric returned 3 values, but 2 before: "):
        limit.loss(search(TABLE, "5bits", trials=0))


@pytest.mark.parametrize(("error", "lost"), [(8.0, 0.05), (3.0, 0.5)])  # first the loss binds, then the error
def test_the_smallest_plan_keeps_all_limits_and_is_the_larger_of_the_two(error: float, lost: float) -> None:
    limits = [held_out_limit(error), QualityLimit("drop", lost, size_loss)]
    both = search_smallest(TABLE, limits, measurer=FakeMeasurer(TABLE), trials=0)
    alone = [search_smallest(TABLE, [limit], measurer=FakeMeasurer(TABLE), trials=0).plan.size.layer_bytes for limit in limits]
    assert [row["name"] for row in both.plan.evidence["asked"]] == ["held-out error", "drop"]
    assert all(row["value"] <= row["most"] for row in both.plan.evidence["asked"])
    assert both.plan.size.layer_bytes == pytest.approx(max(alone), rel=0.05)


def test_costs_hold_for_the_smallest_plan_too() -> None:
    limited = search_smallest(TABLE, [held_out_limit(8.0)], measurer=FakeMeasurer(TABLE), trials=0, memory="70%")
    cost = limited.plan.evidence["costs"]["memory_bytes"]
    assert cost["total"] <= cost["most"]
    assert limited.plan.evidence["asked"]["value"] <= 8.0


def test_within_a_budget_the_best_plan_is_found_that_keeps_the_limits() -> None:
    best = search(TABLE, "5bits", measurer=FakeMeasurer(TABLE), settings=NONE)
    error = best.plan.evidence["measured"]["held_out"]
    kept = search_within(TABLE, Budget("5bits"), [held_out_limit(1.01 * error)], measurer=FakeMeasurer(TABLE), settings=NONE)
    assert kept.plan.layers == best.plan.layers
    assert kept.plan.budget == Budget("5bits")
    assert kept.plan.evidence["asked"] == {"name": "held-out error", "value": pytest.approx(error, rel=1e-3), "most": 1.01 * error}
    with pytest.raises(
        BudgetError, match=r"^no plan was found with a budget of 5bits \(layers\) and a held-out error of at most .*: the best one has"
    ):
        search_within(TABLE, Budget("5bits"), [held_out_limit(0.9 * error)], measurer=FakeMeasurer(TABLE), settings=NONE)
