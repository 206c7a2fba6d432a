"""Runs the recovery steps in turn: each uses calibration samples and starts from what was kept before; held-out samples decide on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from mpq.data.dataset import Data
from mpq.errors import MpqError
from mpq.recovery.base import Decision, Proposal, State, Step, Task
from mpq.recovery.held_out import LEAST_SAMPLES, decide
from mpq.recovery.registry import STEPS
from mpq.tensors.narrow import narrowed


@dataclass(frozen=True)
class Recovered:
    """The result of all steps.

    Args:
        state: all weights, and the tensors that changed.
        decisions: one for each step, in order.
    """

    state: State
    decisions: tuple[Decision, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the steps that were kept."""
        return tuple(decision.name for decision in self.decisions if decision.kept)

    @property
    def stopped(self) -> tuple[str, ...]:
        """Names of the steps that the emergency stop ended, kept or not."""
        return tuple(decision.name for decision in self.decisions if decision.stopped)


def hindrances(
    module: nn.Module, data: tuple[Data, Data] | None, off: Collection[str] = (), *, steps: Sequence[Step] = STEPS
) -> dict[str, str]:
    """Why steps are not tried, by their names; runs one batch if needed to find out.

    Args:
        module: the unquantized model.
        data: the calibration and the held-out samples; None if there are none.
        off: names of steps that are switched off.
        steps: all steps.
    """
    found = {step.name: _hindrance(step, module, data, off) for step in steps}
    return {name: reason for name, reason in found.items() if reason is not None}


def untried(hindered: Mapping[str, str], *, steps: Sequence[Step] = STEPS) -> tuple[Decision, ...]:
    """The decisions if no step is tried."""
    return tuple(_skipped(step, hindered[step.name]) for step in steps)


def recover(
    task: Task,
    state: State,
    held_out: Data,
    hindered: Mapping[str, str],
    *,
    rest_dtype: str | None = None,
    steps: Sequence[Step] = STEPS,
) -> Recovered:
    """Run the steps in turn, each from what was kept before.

    Args:
        task: the input of the steps.
        state: the weights as the quantizer left them, and unquantized tensors that storing rounds.
        held_out: the samples that decide.
        hindered: why steps are not tried, by name.
        rest_dtype: dtype of unquantized tensors where it is smaller; a step's proposal is rounded to it before it is judged.
        steps: all steps.
    """
    decisions = list[Decision]()
    for step in steps:
        if step.name in hindered:
            decisions.append(_skipped(step, hindered[step.name]))
            continue
        task = replace(task, kept=tuple(made.name for made in decisions if made.kept))
        proposal, seconds = _proposed(step, task, state, rest_dtype)
        if not proposal.changes:
            made = _skipped(step, proposal.about + proposal.remark, seconds=seconds)
            decisions.append(replace(made, stopped=proposal.stopped, details=proposal.details))
            continue
        decisions.append(decide(step, proposal, task, state, held_out, seconds=seconds))
        if decisions[-1].kept:
            state = state.changed(proposal.weights, proposal.tensors, proposal.ranges)
    return Recovered(state, tuple(decisions))


def _hindrance(step: Step, module: nn.Module, data: tuple[Data, Data] | None, off: Collection[str]) -> str | None:
    if step.name in off:
        return "switched off"
    if data is None:
        return "no data to decide with"
    calibration, held_out = data
    if held_out.samples < LEAST_SAMPLES:
        return f"{held_out.samples} held-out sample is too few to decide with"
    return step.hindrance(module, calibration)


def _proposed(step: Step, task: Task, state: State, rest_dtype: str | None) -> tuple[Proposal, float]:
    clock = task.limits.clock()
    try:
        proposal = step.propose(task, state)
        if rest_dtype is not None:
            stored = {name: narrowed(tensor, rest_dtype, name).to(tensor.dtype) for name, tensor in proposal.tensors.items()}
            proposal = replace(proposal, tensors=stored)
    except MpqError as problem:
        proposal = Proposal(str(problem))
    return proposal, clock.spent


def _skipped(step: Step, reason: str, *, seconds: float | None = None) -> Decision:
    return Decision(step.name, step.title, kept=False, reason=f"skipped: {reason}", seconds=seconds)
