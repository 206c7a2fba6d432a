"""The study: every measured plan is an Optuna trial, so that a search can be killed, resumed, shared and inspected. No torch.

A trial has user attributes with readable names: `stage`, `plan` (scheme by layer), `bits_per_weight`, `error_of_each_sample` (calibration
samples), `note`, `worker`, and `options` (the plan in the form that mpq reads back). A plan is never measured twice. A measurement stops
early (a pruned trial) once its mean is far above the incumbent's on the same samples; its error is then an estimate: the incumbent's times
the ratio so far.

Several processes may work on one study: `refresh` reads the trials that others finished, and the plans that others are measuring now
(`pending`) change this process's random streams. To avoid measuring a plan twice, the storage numbers trials one at a time, and a process
that has chosen its plan waits for every earlier trial that has not chosen yet or has chosen the same plan (Lamport's bakery: CACM 17(8),
1974). A killed worker leaves a running trial behind, which does not count (`workers.py`), so a single search resumes as if it had not been
killed. An interrupted worker marks its trial as failed.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mpq.errors import FormatError
from mpq.evidence.paired_test import compare, mean_difference
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors
from mpq.search.problem import Problem
from mpq.search.storage import open_storage
from mpq.search.trial_facts import REMEDY, is_choice, read_facts
from mpq.search.workers import at_work, seen, signs

Measure = Callable[[Mapping[str, Scheme]], Iterable[Errors]]
"""The error of a plan on each calibration sample, some samples at a time, always in the same order."""
Propose = Callable[[optuna.Trial], tuple[int, ...]]
_STARTUP = 8
_SHORTEST, _LONGEST = 0.02, 0.25  # seconds between two checks of other workers
_FEWEST = 8  # samples measured before a plan may be stopped
_HOPELESS = 2.5  # standard errors of the mean only, because a plan may lose on most samples and win on the few that dominate the mean


@dataclass(frozen=True)
class Measured:
    """A measured plan: one option per group, and its error on each calibration sample.

    Args:
        choice: the plan.
        errors: on each sample, or on the first ones if the plan was stopped early.
        stage: the stage that proposed it.
        note: for people.
        estimate: estimate of the mean error if the plan was stopped early; None if all samples were measured.
    """

    choice: tuple[int, ...]
    errors: Errors
    stage: str
    note: str = ""
    estimate: float | None = None

    @property
    def mean(self) -> float:
        """Mean error, estimated if the plan was stopped early; infinity if an output was not finite."""
        value = float(self.errors.mean()) if self.estimate is None else self.estimate
        return value if math.isfinite(value) else math.inf

    def better_than(self, incumbent: Measured) -> bool:
        """Whether this fully measured plan should replace the incumbent."""
        return self.estimate is None and compare(self.errors, incumbent.errors).promising


class Study:
    """The trials of one problem.

    Args:
        problem: defines the meaning of a choice.
        measure: the error of a plan on each calibration sample.
        seed: seed of everything random; each trial has its own stream, so a resumed study continues as if it had not stopped.
        name: name of the study in its storage; studies of different problems must have different names.
        storage: an Optuna storage or its URL; None keeps the study in memory.
        facts: facts about the study, for people.
        metric: name of the trials' values, for people.

    Attributes:
        finished: the finished trials of all stages, in order.
        measurements: plans measured in this run.
    """

    def __init__(
        self,
        problem: Problem,
        measure: Measure,
        *,
        seed: int,
        name: str,
        storage: optuna.storages.BaseStorage | str | None = None,
        facts: Mapping[str, str] | None = None,
        metric: str | None = None,
    ) -> None:
        self.problem, self.seed = problem, seed
        self._measure = measure
        self._weights = sum(layer.weights for group in problem.groups for layer in group.layers)
        if isinstance(storage, str):
            storage = open_storage(storage, beside=Path())
        with quiet():
            self._optuna = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="minimize")
            if metric is not None and self._optuna.metric_names is None:
                self._optuna.set_metric_names([metric])
        for key, value in (facts or {}).items():
            if self.kept(key) != value:
                self.keep(key, value)
        self.finished: list[Measured] = []
        self._seen: dict[tuple[int, ...], Measured] = {}
        self._numbers: set[int] = set()
        self.measurements = 0
        self.refresh()

    def refresh(self) -> None:
        """Read the trials that other workers have finished since."""
        for trial in self._trials(TrialState.COMPLETE, TrialState.PRUNED):
            if trial.number not in self._numbers:
                self._add(trial.number, self._read(trial))

    def pending(self) -> set[tuple[int, ...]]:
        """The plans that other workers are measuring now."""
        return {choice for trial in self._running() if (choice := self._choice(trial)) is not None and at_work(trial)}

    def stage(self, name: str) -> list[Measured]:
        """The finished trials of one stage, in order."""
        return [measured for measured in self.finished if measured.stage == name]

    def trial(self, stage: str, propose: Propose, *, note: str = "", incumbent: Measured | None = None) -> Measured:
        """Ask for a plan, measure it unless it is known, and record it; the measurement stops early if it is worse than `incumbent`."""
        number, others = len(self.finished), len(self.pending())
        self._optuna.sampler = _sampler(self.seed * 100_003 + number + 7_919 * others)
        trial = self._optuna.ask()
        try:
            self._attribute(trial, signs())
            choice = propose(trial)
            self._announce(trial, stage, choice)
            self._wait(trial.number, choice)
            known = self._seen.get(choice)
            trial.set_user_attr("note", note + (" (measured before)" if known is not None else ""))
            if known is None:
                with seen(trial.set_user_attr):
                    errors, estimate = self._measured(choice, incumbent)
            else:
                errors, estimate = known.errors, known.estimate
        except BaseException:
            with quiet():
                self._optuna.tell(trial, state=TrialState.FAIL)
            raise
        found = Measured(choice, errors, stage, note, estimate)
        self._record(trial, found)
        return found

    def generator(self, stage: str, number: int) -> np.random.Generator:
        """The random stream of one trial of one stage; different while other workers are active."""
        others = len(self.pending())
        return np.random.default_rng([self.seed, number, *([others] if others else []), *stage.encode()])

    @property
    def known(self) -> set[tuple[int, ...]]:
        """All plans that are measured, or that another worker is measuring."""
        return set(self._seen) | self.pending()

    def kept(self, name: str) -> Any:
        """The value kept in the study under this name; None if there is none."""
        return self._optuna.user_attrs.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value in the study."""
        self._optuna.set_user_attr(name, value)

    def _measured(self, choice: tuple[int, ...], incumbent: Measured | None) -> tuple[Errors, float | None]:
        self.measurements += 1
        errors: Errors = np.empty(0)
        for part in self._measure(self.problem.schemes(choice)):
            errors = np.concatenate([errors, part])
            if incumbent is not None and _FEWEST <= len(errors) < len(incumbent.errors):
                same = incumbent.errors[: len(errors)]
                difference, stderr = mean_difference(errors, same)
                if difference > _HOPELESS * stderr:
                    ratio = float(errors.mean() / same.mean()) if same.mean() > 0 else math.inf
                    return errors, incumbent.mean * ratio
        if self._samples not in (None, len(errors)):
            raise FormatError(f"the study has plans measured on {self._samples} samples, but there are {len(errors)} now: {REMEDY}")
        return errors, None

    @property
    def _samples(self) -> int | None:
        """The number of calibration samples of a fully measured plan; None if there is none yet."""
        return next((len(measured.errors) for measured in self.finished if measured.estimate is None), None)

    def _wait(self, number: int, choice: tuple[int, ...]) -> None:
        """Wait while an earlier trial of another worker measures the same plan, or has not chosen its plan yet."""
        pause = _SHORTEST
        while True:
            earlier = [trial for trial in self._running() if trial.number < number and at_work(trial)]
            self.refresh()  # after checking what runs: trials that ended in between are read now
            if choice in self._seen or not any(self._choice(trial) in (None, choice) for trial in earlier):
                return
            time.sleep(pause)
            pause = min(_LONGEST, 1.5 * pause)

    def _announce(self, trial: optuna.Trial, stage: str, choice: tuple[int, ...]) -> None:
        attributes = {
            "stage": stage,
            "bits_per_weight": round(self._effective_bits(choice), 4),
            "plan": {name: str(scheme) for name, scheme in self.problem.schemes(choice).items()},
            "options": list(choice),
        }
        self._attribute(trial, attributes)

    @staticmethod
    def _attribute(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            trial.set_user_attr(key, value)

    def _record(self, trial: optuna.Trial, found: Measured) -> None:
        trial.set_user_attr("error_of_each_sample", [None if math.isnan(error) else error for error in found.errors.tolist()])
        value = found.mean if math.isfinite(found.mean) else 1e30
        with quiet():
            if found.estimate is None:
                self._optuna.tell(trial, value)
            else:
                trial.set_user_attr("estimated_error", found.estimate if math.isfinite(found.estimate) else None)
                trial.report(value, len(found.errors))
                self._optuna.tell(trial, state=TrialState.PRUNED)
        self._add(trial.number, found)

    def _add(self, number: int, found: Measured) -> None:
        self._numbers.add(number)
        self.finished.append(found)
        self._seen.setdefault(found.choice, found)

    def _effective_bits(self, choice: tuple[int, ...]) -> float:
        schemes = self.problem.schemes(choice)
        return sum(schemes[layer.name].stored_bits(layer.matrix) for group in self.problem.groups for layer in group.layers) / self._weights

    def _running(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return found

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return [trial for trial in self._optuna.get_trials(deepcopy=False, states=states) if "options" in trial.user_attrs]

    def _choice(self, trial: FrozenTrial) -> tuple[int, ...] | None:
        """The plan of a running trial; None while it has not chosen one."""
        options = trial.user_attrs.get("options")
        return tuple(options) if is_choice(options, self.problem) else None

    def _read(self, trial: FrozenTrial) -> Measured:
        facts = read_facts(trial, self.problem, samples=self._samples)
        return Measured(tuple(facts.options), facts.errors, facts.stage, facts.note, facts.estimate)


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    """TPE over all knobs jointly, which learns only from finished trials.

    `group`, because trials of other stages have no knobs, so that no knob would be common to all; no `constant_liar`, because a killed
    search leaves a running trial behind and must continue as if it had not been killed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=False, n_startup_trials=_STARTUP)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Optuna's lines about each trial and about experimental features; mpq prints what matters."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
