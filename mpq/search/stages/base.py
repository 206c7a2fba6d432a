"""A stage: one way to propose the next plan to measure. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import optuna

from mpq.formats.scheme import Scheme
from mpq.records.slopes import Slopes
from mpq.search.problem import Problem
from mpq.search.study import Measured

Choice = tuple[int, ...]
Rows = Sequence[Sequence[float]]
FindSlopes = Callable[[Mapping[str, Scheme]], Slopes]
"""What each scheme of each layer would change in a plan's error; raises an MpqError if that cannot be computed."""


class Notebook(Protocol):
    """Values kept with the trials, so that no worker computes them twice; `Study` is one."""

    def kept(self, name: str) -> Any:
        """The value under this name; None if there is none."""

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value."""


@dataclass(frozen=True)
class Setting:
    """What every stage of a search is made with.

    Args:
        problem: groups, costs and limits.
        trials: new plans of all stages together.
        notebook: values kept with the trials.
        find_slopes: how a gradient prices all options at a plan; None if the measurer has no gradients.
    """

    problem: Problem
    trials: int
    notebook: Notebook
    find_slopes: FindSlopes | None = None


@dataclass(frozen=True)
class Turn:
    """The search at the moment when a stage proposes.

    Args:
        number: trials of this stage so far, from all workers.
        best: the incumbent.
        generator: the random stream of this proposal; a resumed search gets the same one.
        known: plans that were measured or are being measured; do not propose them.
        finished: all measured plans, in order.
        expected: errors by group and option as predicted by the first stage that has a model; the table's own if none has.
    """

    number: int
    best: Measured
    generator: np.random.Generator
    known: set[Choice]
    finished: Sequence[Measured]
    expected: Rows


@dataclass(frozen=True)
class Proposal:
    """A plan to measure.

    Args:
        choose: gives one option per group; it may ask Optuna's trial for parameters, which are then recorded with the trial.
        note: what is new about the plan, for people.
    """

    choose: Callable[[optuna.Trial], Choice]
    note: str = ""


class Stage(ABC):
    """One way to propose plans.

    `schedule.py` runs the stages in order of `place` and calls, for each of them:

    1. `__init__` for all stages before anything is measured.
    2. `begin(best)` once, when the stage's turn comes. None: the stage does not run in this search. Otherwise the cost, in passes over
       the calibration samples, of what it had to compute; it counts against the stage's own trials.
    3. Until its trials are used up: `prepare(best, room)`, which may compute more and returns the cost; then `propose(turn)`. The plan is
       measured and a paired test decides whether it replaces the incumbent. None: the stage has no plan left and ends early.
    4. `observe(found)` after every new plan of the whole search, other stages' and other workers' too, also before its turn and after it.
       A resumed search replays the recorded plans through `observe` in their order, so the stage keeps no state of its own on disk.

    A stage takes `share` of the trials, or `share_with_slopes` in searches where the model gives gradients. The last stage takes all
    trials that the others leave. A plan that was given up early counts in part; a plan that is already known counts nothing.

    Attributes:
        name: of its trials in stored studies; never renamed, or old studies cannot be resumed.
        title: of its finalist; the name unless set.
        place: position in the order of the stages.
        notes: why it did not run, for people.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    place: ClassVar[int]
    share: ClassVar[float] = 0.0
    share_with_slopes: ClassVar[float] = 0.0

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.notes: tuple[str, ...] = ()

    def begin(self, best: Measured) -> float | None:
        """The cost of getting ready, in passes; None if the stage does not run."""
        return 0.0

    def prepare(self, best: Measured, room: float) -> float:
        """The cost, in passes, of what is computed before the next proposal; at most `room`."""
        return 0.0

    @abstractmethod
    def propose(self, turn: Turn) -> Proposal | None:
        """The next plan; None if there is none left."""

    def observe(self, found: Measured) -> None:
        """Learn from a measured plan."""
        return

    def expected(self) -> Rows | None:
        """Errors by group and option that the stage's own model predicts; None if it has no model."""
        return None
