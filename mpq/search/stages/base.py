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
    """The arguments that every stage of a search is created with.

    Args:
        problem: groups, costs and limits.
        trials: number of new plans of all stages together.
        notebook: values kept with the trials.
        find_slopes: computes prices of all options at a plan from gradients; None if the measurer has no gradients.
    """

    problem: Problem
    trials: int
    notebook: Notebook
    find_slopes: FindSlopes | None = None


@dataclass(frozen=True)
class Turn:
    """The state of the search when a stage proposes.

    Args:
        number: number of trials of this stage so far, from all workers.
        best: the incumbent.
        generator: the random stream of this proposal; a resumed search gets the same one.
        known: plans that are measured or being measured; do not propose them.
        finished: all measured plans, in order.
        expected: errors by group and option, predicted by the first stage with a model; the table's own if there is none.
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
        choose: gives one option per group. It may ask Optuna's trial for parameters, which are then recorded with the trial.
        note: what is new about the plan, for people.
    """

    choose: Callable[[optuna.Trial], Choice]
    note: str = ""


class Stage(ABC):
    """One way to propose plans.

    `schedule.py` runs the stages in order of `place` and calls, for each of them:

    1. `__init__` for all stages before anything is measured.
    2. `begin(best)` once, when the stage's turn comes. It returns None if the stage does not run in this search. Otherwise it returns the
        cost of its computations, in passes over the calibration samples; it counts against the stage's own trials.
    3. Until its trials are used up: `prepare(best, room)`, which may compute more and returns the cost; then `propose(turn)`. The plan is
        measured, and a paired test decides whether it replaces the incumbent. None means that the stage has no plan left and ends early.
    4. `observe(found)` after every new plan of the whole search, including those of other stages and workers, before and after its turn.
       A resumed search replays the recorded plans through `observe` in order, so a stage keeps no state on disk.

    A stage gets `share` of the trials, or `share_with_slopes` if the model gives gradients. The last stage gets all remaining trials. A
    plan that was stopped early counts in part; a plan that is already known does not count.

    Attributes:
        name: the name of its trials in stored studies. Never rename it, or old studies cannot be resumed.
        title: the name of its finalist; `name` unless set.
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
        """Prepare the stage and return the cost, in passes; None if the stage does not run."""
        return 0.0

    def prepare(self, best: Measured, room: float) -> float:
        """Compute what the next proposal needs and return the cost, in passes; at most `room`."""
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
