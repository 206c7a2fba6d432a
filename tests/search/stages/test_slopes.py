from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from mpq.records.plan import plan_to_yaml
from mpq.search.run import SearchResult, search
from mpq.search.stages.registry import stage_kinds
from mpq.search.stages.schedule import trials_of
from tests.search.measuring import FakeMeasurerWithSlopes
from tests.small import random_table

TABLE = random_table(5, count=10)


def found(measurer: FakeMeasurerWithSlopes, **choices: Any) -> SearchResult:
    return search(TABLE, "4.5bits", measurer=measurer, **({"trials": 40} | choices))


def test_slopes_find_a_better_plan_in_fewer_measurements_than_the_table_alone() -> None:
    with_slopes = FakeMeasurerWithSlopes(TABLE)
    result = found(with_slopes)
    by_name = {finalist.name: float(finalist.calibration.mean()) for finalist in result.finalists}
    assert by_name["gradient search"] < by_name["table optimum"]
    first = next(each for each in result.finalists if each.name == "gradient search")
    assert first.held_out.mean() < result.finalists[0].held_out.mean()
    assert with_slopes.asked
    assert result.notes == ()


def test_finding_slopes_counts_among_the_trials() -> None:
    measurer = FakeMeasurerWithSlopes(TABLE)
    found(measurer)
    fixed = 1 + len(["int2", "int4", "int4-g32"])
    assert len(measurer.tried) <= fixed + 40 - 5 * len(measurer.asked) + 1


@pytest.mark.parametrize("stop_after", [3, 6, 9, 14])
def test_a_resumed_search_finds_no_slopes_twice_and_the_same_plan(stop_after: int) -> None:
    expected, storage = FakeMeasurerWithSlopes(TABLE), InMemoryStorage()
    whole = found(expected)
    before, after = FakeMeasurerWithSlopes(TABLE, stop_after=stop_after), FakeMeasurerWithSlopes(TABLE)
    with pytest.raises(KeyboardInterrupt):
        found(before, storage=storage)
    resumed = found(after, storage=storage)
    assert before.tried + after.tried == expected.tried
    assert before.asked + after.asked == expected.asked
    assert plan_to_yaml(resumed.plan) == plan_to_yaml(whole.plan)


def test_a_model_without_gradients_is_searched_without_slopes_and_the_reason_told() -> None:
    measurer = FakeMeasurerWithSlopes(TABLE, reason="the model gives no gradients: it is frozen")
    result = found(measurer)
    assert result.notes == ("no slopes: the model gives no gradients: it is frozen",)
    assert {"knobs", "learn", "swap", "slopes"} >= {f.name for f in result.finalists} & {"knobs", "learn", "swap", "slopes"}
    assert measurer.tried


def test_a_few_trials_are_not_spent_on_slopes() -> None:
    measurer = FakeMeasurerWithSlopes(TABLE)
    assert found(measurer, trials=8).notes == ()
    assert measurer.asked == []


@pytest.mark.parametrize("trials", [0, 1, 16, 64])
def test_the_stages_share_all_trials(trials: int) -> None:
    assert sum(trials_of(kind.name, trials, slopes=True) for kind in stage_kinds()) == trials
