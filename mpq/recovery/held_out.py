"""Decides on steps: one is kept only if it significantly reduces the error on held-out samples, which it has never seen."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.activations.errors import rounded_errors
from mpq.activations.rounding import changes_of
from mpq.data.dataset import Data
from mpq.evidence.paired_test import Comparison, compare
from mpq.models.running.comparison import by_relative_error
from mpq.models.running.metrics import Metric
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import standard_error
from mpq.recovery.base import Decision, Proposal, State, Step, Task

LEAST_SAMPLES = 2  # one sample alone is never significant
_SHORT = {
    "kl_divergence": "KL",
    "relative_mse": "relative MSE",
    "top1": "top-1 disagreement",
    "cosine": "cosine distance",
    "combined": "combined error",
}


@dataclass(frozen=True)
class Verdict:
    """Errors before and after a change, and whether they differ significantly.

    Args:
        metric: name of the metric.
        means: mean errors before and after.
        stderr: standard errors of both.
        compared: the paired test.
    """

    metric: str
    means: tuple[float, float]
    stderr: tuple[float, float]
    compared: Comparison

    @property
    def figures(self) -> str:
        """For people: "KL 0.000457 -> 0.000157"."""
        before, after = self.means
        return f"{_SHORT.get(self.metric, self.metric)} {before:.4g} -> {after:.4g}"


def decide(step: Step, proposal: Proposal, task: Task, before: State, held_out: Data, *, seconds: float) -> Decision:
    """Keep a step's proposal if it significantly reduces the error on the held-out samples.

    If the difference is not significant, the relative squared error of the outputs decides on steps that ask for it: a
    classifier that is certain of all its samples, such as those that it was trained on, has a divergence of nearly zero on almost all of
    them, which carries no information.

    Args:
        step: that made the proposal.
        proposal: with changes.
        task: what the step worked with; its module is unchanged afterwards.
        before: the state that the earlier steps left.
        held_out: samples that decide.
        seconds: that the step took.
    """
    after = before.changed(proposal.weights, proposal.tensors, proposal.ranges)
    first = _judged(task, before, after, held_out, task.metric)
    better, details = first.compared.better, dict(proposal.details)
    figures = f"{first.figures} on {held_out.samples} held-out samples"
    if step.outputs_decide and not better and not first.compared.worse:
        outputs = _judged(task, before, after, held_out, by_relative_error(task.metric))
        if better := outputs.compared.better:
            details |= {"decided_by": outputs.metric, "outputs_before": outputs.means[0], "outputs_after": outputs.means[1]}
            figures += f", no significant difference; decided by {outputs.figures}"
    if not better:
        figures += ", significantly worse" if first.compared.worse else ", no significant gain"
    return Decision(
        step.name,
        step.title,
        better,
        f"{f'kept {proposal.about}' if better else 'not kept'}: {figures}{proposal.remark}",
        first.metric,
        *first.means,
        first.stderr,
        seconds,
        proposal.stopped,
        details,
    )


def _judged(task: Task, before: State, after: State, data: Data, metric: Metric) -> Verdict:
    """Errors of two states sample by sample; only one state's values are in memory at a time."""
    reference = Reference(task.module, data, metric, offload=task.offload)
    first, second = (rounded_errors(reference, changes_of(task.groups(state)), task.values(state)).numpy() for state in (before, after))
    means, spread = (float(first.mean()), float(second.mean())), (standard_error(first), standard_error(second))
    return Verdict(metric.name, means, spread, compare(second, first))
