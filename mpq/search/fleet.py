"""The fleet: which processes work on the studies of a storage, and how far these are. No torch.

Everything is read from the trials: who made them, who is measuring now, and when that process was last seen (`workers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from mpq.errors import UsageError
from mpq.search.study import quiet
from mpq.search.workers import at_work, silence
from mpq.shown import printable


@dataclass(frozen=True)
class Worker:
    """One process.

    Args:
        name: host and process.
        finished: trials that it measured, those that were stopped early included.
        stage: of the plan that it measures now; empty if it measures none.
        seconds: since it was last seen, at work or at the end of a trial; infinity if nobody knows.
        lost: whether it was killed while it measured a plan.
    """

    name: str
    finished: int
    stage: str
    seconds: float
    lost: bool


@dataclass(frozen=True)
class StudyState:
    """One study.

    Args:
        name: budget and digest.
        facts: model and budget, as the search says them.
        measured: trials that saw all samples.
        given_up: trials that were stopped early.
        failed: trials that were interrupted.
        running: trials that are measured now.
        lost: trials that killed processes left; they count for nothing.
        best: lowest error of a plan that saw all samples; None if there is none.
        bits: bits per weight of that plan.
        workers: all processes.
    """

    name: str
    facts: dict[str, str]
    measured: int
    given_up: int
    failed: int
    running: int
    lost: int
    best: float | None
    bits: float | None
    workers: tuple[Worker, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def fleet(storage: BaseStorage) -> list[StudyState]:
    """All studies of a storage, the one begun last first.

    Raises:
        UsageError: if there are none.
    """
    with quiet():
        names = optuna.get_all_study_names(storage)
        studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        found = [_state(study.study_name, study.user_attrs, study.get_trials(deepcopy=False)) for study in studies]
    if not found:
        raise UsageError("the storage holds no study: begin one with mpq search --storage URL")
    return found[::-1]


def _state(name: str, facts: dict[str, Any], trials: Sequence[FrozenTrial]) -> StudyState:
    running = [trial for trial in trials if trial.state is TrialState.RUNNING]
    alive = [trial for trial in running if at_work(trial)]
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    best = min(whole, key=lambda trial: float(trial.value or 0.0), default=None)
    bits = None if best is None else best.user_attrs.get("bits_per_weight")
    return StudyState(
        name=printable(name),
        facts={key: printable(str(facts[key])) for key in ("model", "budget") if key in facts},
        measured=len(whole),
        given_up=sum(trial.state is TrialState.PRUNED for trial in trials),
        failed=sum(trial.state is TrialState.FAIL for trial in trials),
        running=len(alive),
        lost=len(running) - len(alive),
        best=None if best is None or best.value is None else float(best.value),
        bits=float(bits) if isinstance(bits, (int, float)) else None,
        workers=tuple(_worker(each, trials) for each in dict.fromkeys(map(_name, trials)) if each),
    )


def _worker(name: str, trials: Sequence[FrozenTrial]) -> Worker:
    own = [trial for trial in trials if _name(trial) == name]
    running = [trial for trial in own if trial.state is TrialState.RUNNING]
    alive = [trial for trial in running if at_work(trial)]
    stage = printable(str(alive[-1].user_attrs.get("stage", "choosing"))) if alive else ""
    finished = [trial for trial in own if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ends = [(datetime.now() - trial.datetime_complete).total_seconds() for trial in finished if trial.datetime_complete is not None]
    seconds = min([max(0.0, end) for end in ends] + [silence(trial) for trial in running], default=float("inf"))
    return Worker(printable(name), len(finished), stage, seconds, lost=bool(running) and not alive)


def _name(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("worker", ""))
