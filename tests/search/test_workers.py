"""Several processes on one study."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import TrialState

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors
from mpq.search import workers
from mpq.search.problem import Problem, build_groups
from mpq.search.run import search
from mpq.search.storage import open_storage
from mpq.search.study import Study
from mpq.search.workers import SILENT
from tests.cli.warm import Warm
from tests.search.measuring import FakeMeasurerWithSlopes
from tests.small import random_table

PROBLEM = Problem(build_groups(random_table(0, count=4)), 10**9)
FIRST, SECOND = (0, 0, 0, 0), (1, 2, 0, 3)


class Slow(FakeMeasurerWithSlopes):
    """Tells in a file which plans it is asked for, and takes its time."""

    def __init__(self, path: Path) -> None:
        super().__init__(random_table(5, count=10))
        self.path = path

    def calibration(self, schemes: Mapping[str, Scheme]) -> Errors:
        with self.path.open("a") as file:
            file.write(json.dumps({layer: str(scheme) for layer, scheme in schemes.items()}) + "\n")
        time.sleep(0.05)
        return super().calibration(schemes)


def work(name: str, count: str, url: str, trials: str) -> None:
    """A search in a process of its own, which waits until all are ready."""
    folder = Path.cwd()
    (folder / f"{name}.ready").touch()
    while len(list(folder.glob("*.ready"))) < int(count):
        time.sleep(0.01)
    measurer = Slow(folder / f"{name}.tried")
    storage = open_storage(url or None, beside=folder / "x.sensitivity.jsonl")
    found = search(random_table(5, count=10), "4.5bits", measurer=measurer, trials=int(trials), storage=storage)
    best = min(float(finalist.calibration.mean()) for finalist in found.finalists)
    (folder / f"{name}.json").write_text(json.dumps({"asked": measurer.asked, "best": best}))


def working(folder: Path, url: str, *, count: int, trials: int) -> list[Warm]:
    """Processes that search on one storage, all at the same moment."""
    return [Warm(work, str(number), str(count), url, str(trials), cwd=folder) for number in range(count)]


def tried(folder: Path) -> list[str]:
    """The plans that were measured, by any process."""
    return [line for path in folder.glob("*.tried") for line in path.read_text().splitlines()]


def kept(folder: Path, url: str) -> list[optuna.trial.FrozenTrial]:
    """All trials of the one study."""
    storage = open_storage(url or None, beside=folder / "x.sensitivity.jsonl")
    (name,) = optuna.get_all_study_names(storage)
    found: list[optuna.trial.FrozenTrial] = optuna.load_study(study_name=name, storage=storage).trials
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    return found


def plan_of(trial: optuna.trial.FrozenTrial) -> str:
    return json.dumps(trial.user_attrs["plan"])


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty storage; empty for a journal."""
    if kind == "postgresql":
        with cluster(folder) as url:
            yield url
    else:
        yield f"sqlite:///{folder / 'study.db'}" if kind == "sqlite" else ""


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own, on a socket in `folder`, which does not run as root."""
    pytest.importorskip("psycopg")
    found = [Path(path) for path in (shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")) if path is not None]
    if not found:
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp(prefix="mpq-postgres-"))
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(home, user)
    binaries = found[-1].resolve().parent
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"

    def run(name: str, *words: str) -> None:
        line = [str(binaries / name), "-D", str(home / "data"), *words]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=home, user=user)

    run("initdb", "-U", "mpq", "-A", "trust")
    run("pg_ctl", "-w", "-o", options, "-l", str(home / "log"), "start")
    try:
        yield f"postgresql://mpq:secret@/postgres?host={home}"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


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


@pytest.mark.parametrize("kind", ["journal", "sqlite", "postgresql"])
def test_processes_measure_no_plan_twice_and_lose_no_trial(tmp_path: Path, kind: str) -> None:
    with database(kind, tmp_path) as url:
        started = working(tmp_path, url, count=4, trials=16)
        assert [worker.wait(timeout=300) for worker in started] == [0] * 4
        trials = kept(tmp_path, url)
    measured, finished = tried(tmp_path), [trial for trial in trials if trial.state.is_finished()]
    assert len(measured) == len(set(measured)) > 8
    assert finished == trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {plan_of(trial) for trial in trials} == set(measured)
    own = [plan_of(trial) for trial in trials if "measured before" not in trial.user_attrs["note"]]
    assert len(own) == len(set(own)) == len(measured)
    best = [json.loads((tmp_path / f"{number}.json").read_text())["best"] for number in range(4)]
    assert max(best) - min(best) < 0.1 * max(best)


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_killed_workers_lose_nothing_that_was_finished_and_hold_nobody_up(tmp_path: Path, kind: str) -> None:
    with database(kind, tmp_path) as url:
        started = working(tmp_path, url, count=4, trials=16)
        for number, worker in enumerate(started[:2]):
            while len(tried(tmp_path)) < 6 * (number + 1) and worker.poll() is None:
                time.sleep(0.01)
            worker.kill()
        assert [worker.wait(timeout=120) for worker in started] == [-9, -9, 0, 0]
        trials = kept(tmp_path, url)
    finished = {plan_of(trial) for trial in trials if trial.state.is_finished()}
    running = [trial for trial in trials if not trial.state.is_finished()]
    assert len(running) <= 2
    twice = [plan for plan in set(tried(tmp_path)) if tried(tmp_path).count(plan) > 1]
    assert set(twice) <= {plan_of(trial) for trial in running if "plan" in trial.user_attrs}
    assert set(tried(tmp_path)) - finished <= {plan_of(trial) for trial in running if "plan" in trial.user_attrs}


def silent(storage: optuna.storages.BaseStorage, *, seconds: float) -> None:
    """The trial of a process elsewhere that was last seen so long ago."""
    announced(storage, "another machine, process 1")
    (trial,) = optuna.load_study(study_name="a", storage=storage).get_trials(states=(TrialState.RUNNING,))
    storage.set_trial_user_attr(trial._trial_id, "worker_seen", (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat())


@pytest.mark.parametrize(("seconds", "pending"), [(0.0, {SECOND}), (SILENT - 10, {SECOND}), (SILENT + 10, set())])
def test_a_process_elsewhere_has_its_plan_until_it_has_been_silent_for_long(seconds: float, pending: set[tuple[int, ...]]) -> None:
    storage = InMemoryStorage()
    found = study(storage)
    silent(storage, seconds=seconds)
    assert found.pending() == pending


def test_a_process_that_measures_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_BEAT", 0.01)
    storage = InMemoryStorage()

    def looked(_: Mapping[str, Scheme]) -> list[Errors]:
        (trial,) = optuna.load_study(study_name="a", storage=storage).get_trials(states=(TrialState.RUNNING,))
        storage.set_trial_user_attr(trial._trial_id, "worker_seen", "")
        end = time.monotonic() + 10
        while not storage.get_trial(trial._trial_id).user_attrs["worker_seen"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        return [np.array([0.5, 0.25])]

    Study(PROBLEM, looked, seed=0, name="a", storage=storage).trial("exact", lambda _: FIRST)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks the system when a process began")
def test_another_process_of_the_same_number_is_not_taken_for_the_one_that_was_killed() -> None:
    storage = InMemoryStorage()
    found = study(storage)
    announced(storage, f"{socket.gethostname()}, process {os.getppid()}")
    (trial,) = optuna.load_study(study_name="a", storage=storage).get_trials(states=(TrialState.RUNNING,))
    storage.set_trial_user_attr(trial._trial_id, "worker_mark", workers._mark(os.getppid()))
    assert found.pending() == {SECOND}
    storage.set_trial_user_attr(trial._trial_id, "worker_mark", workers._mark(os.getppid()) + "0")
    assert found.pending() == set()


def test_a_later_trial_waits_for_an_earlier_one_that_has_not_chosen_yet() -> None:
    storage, measured = InMemoryStorage(), list[Mapping[str, Scheme]]()

    def counted(schemes: Mapping[str, Scheme]) -> list[Errors]:
        measured.append(schemes)
        return measure(schemes)

    found = Study(PROBLEM, counted, seed=0, name="a", storage=storage)
    earlier = optuna.load_study(study_name="a", storage=storage).ask()
    earlier.set_user_attr("worker", f"{socket.gethostname()}, process {os.getppid()}")

    def choose() -> None:
        assert measured == []
        earlier.set_user_attr("options", list(FIRST))

    timer = threading.Timer(0.3, choose)
    timer.start()
    began = time.monotonic()
    found.trial("learn", lambda _: SECOND)
    assert time.monotonic() - began > 0.25
    assert len(measured) == 1
