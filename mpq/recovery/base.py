"""The base of recovery steps: the input of a step, its proposal, and the decision about it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from mpq.data.dataset import Data
from mpq.errors import MpqError
from mpq.models.memory.offload import Offload
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.models.running.metrics import Metric
from mpq.records.activations import Groups
from mpq.records.layer import Layer
from mpq.tensors.quantized import QuantizedWeight

TERA = 1e12

Progress = Callable[[int, int, str], None]
"""Called with (done, total, text)."""


class OutOfTimeError(MpqError):
    """The emergency stop: a step has used up its time."""


@dataclass(frozen=True)
class State:
    """What an artifact would store.

    Args:
        weights: quantized weights by layer name.
        tensors: new values for unquantized tensors, by name in the state dict.
        ranges: the groups of tensors between layers, if their ranges are other than those of the task; else empty.
    """

    weights: Mapping[str, QuantizedWeight]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    ranges: Groups = field(default_factory=dict)

    def values(self, layers: Iterable[Layer], offload: Offload | None = None) -> dict[str, Tensor]:
        """All values that differ from the unquantized model's, by name in the state dict; those of weights on disk with `offload`."""
        return as_parameters(self.weights, layers, offload) | dict(self.tensors)

    def changed(self, weights: Mapping[str, QuantizedWeight], tensors: Mapping[str, Tensor], ranges: Groups | None = None) -> State:
        """The same state with some weights and tensors, and all ranges if there are any, replaced."""
        return State({**self.weights, **weights}, {**self.tensors, **tensors}, ranges or self.ranges)


@dataclass(frozen=True)
class Limits:
    """Limits of a step. The limit on work gives the same result on every machine; the limit on time is an emergency stop.

    Args:
        work: floating-point operations, as estimated before the step begins.
        minutes: of wall clock.
        option: that sets the time, for messages.
    """

    work: float
    minutes: float
    option: str = "--tune-minutes"

    def clock(self) -> Clock:
        """A clock that starts now."""
        return Clock(60 * self.minutes)

    @property
    def told(self) -> str:
        """The time limit, for messages."""
        return f"{self.minutes:g} minutes ({self.option})"


UNLIMITED = Limits(math.inf, math.inf)


class Clock:
    """The time that a step has taken."""

    def __init__(self, seconds: float) -> None:
        self._began, self._seconds = time.monotonic(), seconds

    @property
    def spent(self) -> float:
        """In seconds."""
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return self.spent >= self._seconds

    def check(self) -> None:
        """Stop a step whose time is used up.

        Raises:
            OutOfTimeError: if the time is used up.
        """
        if self.over:
            raise OutOfTimeError(f"{self.spent:.0f} s")


@dataclass(frozen=True)
class Task:
    """The input of a step; it never sees the held-out samples.

    Args:
        variants: of the unquantized model, which is unchanged after each step.
        calibration: the samples to use.
        metric: of errors.
        seed: of all randomness.
        limits: of work and time.
        progress: gives the progress callback of a step, by its name.
        activations: tensors between layers that the artifact rounds.
        kept: names of the steps before that were kept.
    """

    variants: Variants
    calibration: Data
    metric: Metric
    seed: int
    limits: Limits
    progress: Callable[[str], Progress] | None = None
    activations: Groups = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @property
    def module(self) -> nn.Module:
        """The unquantized model."""
        return self.variants.module

    @property
    def layers(self) -> list[Layer]:
        """The quantized layers."""
        return list(self.variants.layers.values())

    @property
    def offload(self) -> Offload | None:
        """Where weights are while they are not used; None if they are in memory."""
        return self.variants.offload

    def values(self, state: State) -> dict[str, Tensor]:
        """All values of a state that differ from the unquantized model's, by name in the state dict."""
        return state.values(self.layers, self.offload)

    def groups(self, state: State) -> Groups:
        """The tensors between layers that the artifact rounds, with the ranges of a state."""
        return state.ranges or self.activations

    def on(self, module: nn.Module) -> Task:
        """The same with another form of the model, which has the same tensors under the same names."""
        variants = copy(self.variants)
        variants.module = module
        return replace(self, variants=variants)


@dataclass(frozen=True)
class Proposal:
    """What a step would change.

    Args:
        about: what changes, to follow "kept", for example "for 5 layers"; if nothing changes, the reason.
        weights: new quantized weights by layer name, under the same schemes.
        tensors: new values for unquantized tensors, by name in the state dict.
        details: facts specific to the step, as JSON.
        stopped: whether the emergency stop ended the step, so that the proposal depends on the machine's speed.
        remark: an addition to the end of the line.
        ranges: the groups of tensors between layers, if a range changes.
    """

    about: str
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False
    remark: str = ""
    ranges: Groups = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether anything would change."""
        return bool(self.weights or self.tensors or self.ranges)


@dataclass(frozen=True)
class Decision:
    """What was decided about one step.

    Args:
        name: of the step.
        title: of the step, for people.
        kept: whether the artifact holds what the step changed.
        reason: for people, with the values.
        metric: of the errors.
        before: mean error on the held-out samples without the step; None if nothing was measured.
        after: the same with it.
        stderr: standard errors of both.
        seconds: that the step took, without the decision; None if it did not run.
        stopped: whether the emergency stop ended it, so that the result depends on the machine's speed.
        details: facts specific to the step, as JSON.
    """

    name: str
    title: str
    kept: bool
    reason: str
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    stderr: tuple[float, float] | None = None
    seconds: float | None = None
    stopped: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """One line for people: "Tuning kept for 5 layers: KL 0.0008 -> 0.0005 on 64 held-out samples (12 s)"."""
        return f"{self.title} {self.reason}" + ("" if self.seconds is None else f" ({self.seconds:.0f} s)")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        stderr = None if self.stderr is None else dict(zip(("before", "after"), self.stderr, strict=True))
        return {**vars(self), "stderr": stderr, "details": dict(self.details)}


def gap_evidence(first: Decision, last: Decision) -> dict[str, Any]:
    """For a plan: the held-out error before the first step and after the last, and the share of it that is gone; empty if not measured."""
    before, after = first.before, last.after
    if before is None or after is None or last.stderr is None:
        return {}
    share = 1 - after / before if before > 0 else 0.0
    return {"before": before, "after": after, "share_of_gap": share, "standard_error": last.stderr[1]}


class Step(ABC):
    """One way to recover quality without extra bytes.

    `recovery/run.py` runs the steps in the order of the registry. It first calls each `hindrance`, before any weight is quantized: if no
    step can help, no quantized weight is kept in memory. Then it calls `propose` of the others in turn, each with what was kept
    of those before it. The held-out samples decide on every proposal (`recovery/held_out.py`); a step never sees them. An `MpqError` that
    `propose` raises becomes the reason why the step is skipped.

    A step must give the same proposal for the same task and state on every machine of one kind, unless its clock runs out.

    Attributes:
        name: in the artifact's header, in JSON, and for progress.
        title: for people.
        outputs_decide: whether the relative error of the outputs decides if the metric shows no significant difference.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    outputs_decide: ClassVar[bool] = False

    def hindrance(self, module: nn.Module, calibration: Data) -> str | None:
        """Why the step cannot help this model, or None if it may; runs at most one batch."""
        return None

    @abstractmethod
    def propose(self, task: Task, state: State) -> Proposal:
        """What the step would change in `state`; the module is unchanged afterwards."""
