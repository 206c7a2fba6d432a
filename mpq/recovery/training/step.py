"""Training as a step of recovery: held-out samples decide on it like on any other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpq.activations.learned import moved_ranges
from mpq.errors import ModelError
from mpq.recovery.base import Proposal, State, Step, Task
from mpq.recovery.training.checkpoints import Checkpoints
from mpq.recovery.training.job import Job
from mpq.recovery.training.run import HALVED, Watch, train
from mpq.recovery.training.settings import TrainSettings
from mpq.shown import counted

_REMEDY = (
    "training needs gradients, so analyze and search with the module itself or an export that is not frozen, and a metric that has them"
)


@dataclass(frozen=True)
class Training(Step):
    """Scales, codes and vectors that follow the gradient of the error, for epochs over the samples of the task.

    Args:
        settings: how.
        checkpoints: where a killed run resumes.
        on_line: given all lines after each evaluation.
        note: what was done before, for the first line.
    """

    settings: TrainSettings
    checkpoints: Checkpoints | None = None
    on_line: Watch | None = None
    note: str = ""

    name = "training"
    title = "Training"

    def propose(self, task: Task, state: State) -> Proposal:
        """The state of the least error on samples that are kept aside, if that is less than before."""
        report = None if task.progress is None else task.progress(self.name)
        job = Job(task.module, task.layers, state, task.calibration, task.metric, replace(self.settings, seed=task.seed))
        job = replace(job, note=self.note, activations=task.activations)
        try:
            found = train(job, checkpoints=self.checkpoints, on_progress=report, on_line=self.on_line)
        except ModelError as problem:
            raise ModelError(f"{problem}: {_REMEDY}") from problem
        last = found.lines[-1]
        details = {
            "level": self.settings.level,
            "steps": last.step,
            "of": last.of,
            "samples": found.samples,
            "rate": last.rate,
            "code_rate": last.code_rate,
            "seconds": round(found.seconds, 1),
        }
        codes = "" if self.settings.level == "scales" else f", {last.code_rate:g} times for codes"
        how = f"{last.step} of {last.of} steps over {found.samples} samples at {last.rate:g} times the usual rates{codes}"
        if halved := [line.event.partition(":")[0] for line in found.lines if HALVED in line.event]:
            how += f", which were halved {counted(len(halved), 'time')} after {halved[-1]}"
        if not found.improved:
            return Proposal(f"no gain on the samples kept aside, {how}", details=details)
        moved = moved_ranges(task.groups(state), task.groups(found.state))
        what = self.settings.level + (f" and {counted(moved, 'range')}" if moved else "")
        new = found.state
        return Proposal(
            f"({what})", new.weights, new.tensors, details | ({"ranges": moved} if moved else {}), remark=f", {how}", ranges=new.ranges
        )
