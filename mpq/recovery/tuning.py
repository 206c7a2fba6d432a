"""Tuning: values that an artifact stores anyway follow the gradient of the error at the model's output, without extra bytes.

The quantized model is brought nearer to the unquantized one on the calibration samples, end to end (knowledge distillation: Hinton et
al. 2015, arXiv 1503.02531): the scales of its weights, as in EfficientQAT's last phase (Chen et al. 2024, arXiv 2407.11062), the vectors
that no scheme changes, biases and the weights of norms, as in norm tweaking (Li et al. 2023, arXiv 2309.02784), and the codes, by
straight-through gradients (see `tensors/tuned.py`). Adam makes a few passes with a rate that falls to zero. A part of the samples is
kept aside; of the states after each pass the one with the least error there is taken. Every error is that of rounded values.

After block reconstruction, which has trained the same values, one pass at a fifth of the rates is enough (`benchmarks/log.md`).

How many passes are made, over how many samples, follows from the operations that one pass takes and the work allowed, so that the
result depends on the seed, not on the machine's speed. Only where the emergency stop ends the passes does it, and then it says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mpq.gradients.error_gradients import error_gradients
from mpq.models.running.reference import Reference
from mpq.recovery.base import Progress, Proposal, State, Step, Task
from mpq.recovery.passes import planned, rate
from mpq.recovery.reconstruction import Reconstruction
from mpq.recovery.trainable import Trainable
from mpq.tensors.quantized import QuantizedWeight

PASSES = 16
AFTER_BLOCKS, GENTLE = 1, 0.2  # passes, and a share of the rates, where the blocks were reconstructed before
OUT_OF_TIME, HOPELESS = "out of time", "hopeless"
_PATIENCE = 0.25  # share of the passes after which the error on the samples kept aside must have been below the first


class Tuning(Step):
    """Scales, codes and vectors that follow the gradient of the error at the output."""

    name = "tuning"
    title = "Tuning"

    def propose(self, task: Task, state: State) -> Proposal:
        """The state after the pass with the least error on the validation part, if that is less than before."""
        if task.calibration.samples < 2:
            return Proposal(f"{task.calibration.samples} sample is too few to tune on")
        report = None if task.progress is None else task.progress(self.name)
        found = tune(task, state, on_progress=report)
        parts = {"layers": len(found.weights), "vectors": len(found.vectors), "codes": found.codes}
        details = {"passes": found.passes, "of": found.of, "samples": found.samples, **parts}
        stopped = found.ended == OUT_OF_TIME
        told = f"{found.passes:.3g} of {found.of}" if found.ended else f"{found.of}"
        how = f"{told} pass{'' if told == '1' else 'es'} over {found.samples} samples"
        how += f", stopped by the limit of {task.limits.told}" if stopped else ""
        if not found.weights and not found.vectors:
            return Proposal(f"no gain on the samples kept aside, {how}", details=details, stopped=stopped)
        about = f"for the scales{' and codes' if found.codes else ''} of {parts['layers']} layers and {parts['vectors']} vectors"
        return Proposal(about, found.weights, found.vectors, details, stopped, remark=f", {how}")


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Args:
        weights: by layer name, those that changed; empty if no state was better than the first on the samples kept aside.
        vectors: by name in the state dict, the same.
        passes: over the samples; not whole if the emergency stop ended them.
        of: passes that were planned.
        samples: that gradients were taken on.
        codes: whether codes were tuned, too.
        ended: why before the last pass: `OUT_OF_TIME`, or `HOPELESS` where the error on the samples kept aside did not fall.
    """

    weights: Mapping[str, QuantizedWeight]
    vectors: Mapping[str, Tensor]
    passes: float
    of: int
    samples: int
    codes: bool
    ended: str


def tune(task: Task, state: State, *, on_progress: Progress | None = None) -> Tuned:
    """Tune the weights and vectors of a state; the module is unchanged afterwards.

    Args:
        task: its calibration samples serve to tune on and to choose a state by; its seed orders them.
        state: to begin with.
        on_progress: called after each step.

    Raises:
        DataError: if there is only one sample.
        ModelError: if no gradient flows.
        UsageError: if the work allowed is too little for the least number of passes and samples.
    """
    clock, module, layers = task.limits.clock(), task.module, task.layers
    after = Reconstruction.name in task.kept
    passes, used, aside = planned(task, AFTER_BLOCKS, least=AFTER_BLOCKS) if after else planned(task, PASSES)
    now = Trainable(module, layers, state)
    reference, watched = Reference(module, used, task.metric), Reference(module, aside, task.metric)
    best, least, ended = None, float(watched.errors(now.values()).mean()), ""
    count, done, generator = len(used.batches), 0, torch.Generator().manual_seed(task.seed)
    for number in range(1, passes + 1):
        for index in torch.randperm(count, generator=generator).tolist():
            if clock.over:
                ended = OUT_OF_TIME
                break
            error, gradients = error_gradients(reference, index, now.values(), now.wanted)
            if math.isfinite(error):
                now.step(gradients, (GENTLE if after else 1.0) * rate(done / (passes * count)))
            done += 1
            if on_progress is not None:
                on_progress(done, passes * count, f"pass {number} of {passes}")
        if done > (number - 1) * count and (error := float(watched.errors(now.values()).mean())) < least:
            best, least = now.snapshot(), error
        if best is None and passes > number >= passes * _PATIENCE:
            ended = ended or HOPELESS
        if ended:
            break
    return Tuned(*(best or ({}, {})), done / count, passes, used.samples, now.codes, ended)
