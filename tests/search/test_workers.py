"""Several processes on one study."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mpq.records.sensitivity import Errors
from mpq.schemes import Scheme
from mpq.search.problem import Problem, build_groups
from mpq.search.study import Study
from tests.cli.typed import ROOT
from tests.small import random_table

PROBLEM = Problem(build_groups(random_table(0, count=4)), 10**9)
FIRST, SECOND = (0, 0, 0, 0), (1, 2, 0, 3)
WORKER = """
import json, sys, time
from pathlib import Path
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from mpq.search.run import search
from tests.search.measuring import FakeMeasurerWithSlopes
from tests.small import random_table

class Slow(FakeMeasurerWithSlopes):
    def calibration(self, schemes):
        time.sleep(0.05)
        return super().calibration(schemes)

folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.01)
table = random_table(5, count=10)
measurer = Slow(table)
found = search(table, "4.5bits", measurer=measurer, trials=60, storage=JournalStorage(JournalFileBackend(str(folder / "journal"))))
best = min(float(f.calibration.mean()) for f in found.finalists)
(folder / f"{name}.json").write_text(json.dumps({"tried": measurer.tried, "asked": measurer.asked, "best": best}))
"""


def measure(_: Mapping[str, Scheme]) -> list[Errors]:
    return [np.array([0.5, 0.25])]


def study(storage: optuna.storages.BaseStorage) -> Study:
    return Study(PROBLEM, measure, seed=0, name="a", storage=storage)


def announced(storage: optuna.storages.BaseStorage, worker: str) -> None:
    trial = optuna.load_study(study_name="a", storage=storage).ask()
    for key, value in (("worker", worker), ("options", list(SECOND))):
        trial.set_user_attr(key, value)


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_another_worker_finished_is_taken_over() -> None:
    storage = InMemoryStorage()
    here, there = study(storage), study(storage)
    there.trial("learn", lambda _: SECOND)
    assert here.finished == []
    here.refresh()
    assert [(each.choice, each.stage) for each in here.finished] == [(SECOND, "learn")]
    here.refresh()
    assert len(here.finished) == 1
    here.trial("learn", lambda _: SECOND)
    assert here.measurements == 0


@pytest.mark.skipif(os.name != "posix", reason="asks the system for a process by its number")
def test_plans_that_a_living_worker_is_measuring_are_known_and_shift_the_streams() -> None:
    storage = InMemoryStorage()
    found = study(storage)
    alone = found.generator("learn", 0).random()
    announced(storage, f"{socket.gethostname()}, process {os.getppid()}")
    assert found.pending() == {SECOND}
    assert SECOND in found.known
    assert found.generator("learn", 0).random() != alone
    announced(storage, "another machine, process 1")
    assert found.pending() == {SECOND}


@pytest.mark.skipif(os.name != "posix", reason="asks the system for a process by its number")
def test_what_a_killed_worker_left_behind_counts_for_nothing() -> None:
    storage = InMemoryStorage()
    found = study(storage)
    alone = found.generator("learn", 0).random()
    announced(storage, f"{socket.gethostname()}, process {ended()}")
    assert found.pending() == set()
    assert found.generator("learn", 0).random() == alone


def test_a_plan_that_another_worker_began_at_the_same_moment_is_measured_once() -> None:
    storage, measured = InMemoryStorage(), []

    def slow(schemes: Mapping[str, Scheme]) -> list[Errors]:
        measured.append(schemes)
        return measure(schemes)

    found = Study(PROBLEM, slow, seed=0, name="a", storage=storage)
    announced(storage, "another machine, process 1")
    (other,) = optuna.load_study(study_name="a", storage=storage).get_trials(states=(TrialState.RUNNING,))

    def finish() -> None:
        storage.set_trial_user_attr(other._trial_id, "error_of_each_sample", [0.5, 0.125])
        storage.set_trial_user_attr(other._trial_id, "stage", "learn")
        storage.set_trial_state_values(other._trial_id, TrialState.COMPLETE, [0.3125])

    timer = threading.Timer(0.3, finish)
    timer.start()
    assert found.trial("learn", lambda _: SECOND).mean == 0.3125
    assert measured == []


def test_an_interrupted_trial_is_told_as_failed() -> None:
    storage = InMemoryStorage()

    def interrupted(_: Mapping[str, Scheme]) -> list[Errors]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study(PROBLEM, interrupted, seed=0, name="a", storage=storage).trial("exact", lambda _: FIRST)
    (trial,) = optuna.load_study(study_name="a", storage=storage).trials
    assert trial.state == TrialState.FAIL
    assert study(storage).finished == []


def test_two_processes_share_their_trials_while_running(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), name], cwd=ROOT) for name in "ab"]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    one, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    (name,) = optuna.get_all_study_names(JournalStorage(JournalFileBackend(str(tmp_path / "journal"))))
    trials = optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal")))).trials
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    tried = [str(plan) for plan in (*one["tried"], *other["tried"])]
    assert len(tried) - len(set(tried)) <= 5  # of 65: two may still begin one plan within the same moment
    assert min(len(one["tried"]), len(other["tried"])) > 10
    assert len(tried) < 4 + 60 + 10  # exact, uniform plans, and trials of the study, not of each process
    assert abs(one["best"] - other["best"]) < 0.1 * max(one["best"], other["best"])
