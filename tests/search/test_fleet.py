"""What the trials of a storage say of the processes that made them."""

import math
from datetime import UTC, datetime, timedelta

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from mpq.errors import UsageError
from mpq.search.fleet import fleet
from mpq.search.workers import SILENT


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def study() -> InMemoryStorage:
    storage = InMemoryStorage()
    made = optuna.create_study(storage=storage, study_name="4.5bits of layers, abc")
    made.set_user_attr("model", "model.pt2")
    for value, bits, worker in ((0.5, 4.4, "one, process 1"), (0.25, 4.5, "two, process 2"), (0.75, 4.3, "one, process 1")):
        made.add_trial(create_trial(value=value, user_attrs={"worker": worker, "bits_per_weight": bits, "stage": "swaps"}))
    made.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={"worker": "one, process 1"}))
    made.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"worker": "one, process 1"}))
    for worker, seconds in (("two, process 2", 3), ("three, process 3", SILENT + 60)):
        made.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"worker": worker, "worker_seen": ago(seconds), "stage": "knobs"}))
    return storage


def test_trials_are_counted_by_what_became_of_them_and_by_worker() -> None:
    (state,) = fleet(study())
    assert (state.name, state.facts) == ("4.5bits of layers, abc", {"model": "model.pt2"})
    assert (state.measured, state.given_up, state.failed, state.running, state.lost) == (3, 1, 1, 1, 1)
    assert (state.best, state.bits) == (0.25, 4.5)
    assert [(each.name, each.finished, each.stage, each.lost) for each in state.workers] == [
        ("one, process 1", 3, "", False),
        ("two, process 2", 1, "knobs", False),
        ("three, process 3", 0, "", True),
    ]
    assert [each.seconds < 30 for each in state.workers] == [True, True, False]
    assert SILENT + 50 < state.workers[2].seconds < SILENT + 90


def test_a_study_that_has_just_begun_has_no_best_plan() -> None:
    storage = InMemoryStorage()
    made = optuna.create_study(storage=storage, study_name="a")
    made.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"worker": "one, process 1"}))
    (state,) = fleet(storage)
    assert (state.best, state.bits, state.measured) == (None, None, 0)
    assert state.workers[0].seconds == math.inf
    assert state.to_dict()["workers"][0]["name"] == "one, process 1"


def test_the_study_begun_last_comes_first() -> None:
    storage = InMemoryStorage()
    for name in ("a", "b"):
        optuna.create_study(storage=storage, study_name=name)
    assert [state.name for state in fleet(storage)] == ["b", "a"]


def test_a_storage_without_a_study_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^the storage holds no study: begin one with mpq search --storage URL$"):
        fleet(InMemoryStorage())
