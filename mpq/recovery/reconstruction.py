"""Block reconstruction: one block after another is trained to give the outputs that it gives in the unquantized model.

Each block gets the inputs that the quantized blocks before it give, so that it also takes back a part of their errors. What is trained are
its codes, its scales, and its biases and norms, as in tuning (`recovery/trainable.py`); the loss is the squared difference of the outputs,
weighted by how much the model's own output depends on it (`recovery/output_weights.py`). BRECQ (Li et al. 2021, arXiv 2102.05426) and
AutoRound (Cheng et al. 2023, arXiv 2309.05516) do the same for rounding alone. Unlike the error at the model's output, the outputs of a
block give as many targets as they have values, so that few samples are enough.

A block keeps what it learned only if the loss on samples that are kept aside is less than before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch, Data
from mpq.gradients.error_gradients import loss_gradients
from mpq.models.running.fake_quantized import as_parameters, on_disk
from mpq.models.running.habits import habits_of
from mpq.models.running.swap import swapped
from mpq.recovery.base import OutOfTimeError, Proposal, State, Step, Task
from mpq.recovery.blocks import Block, Call, blocks_of, call_of, output_of
from mpq.recovery.exported_blocks import divided
from mpq.recovery.output_weights import by_channel, output_weights
from mpq.recovery.passes import ASIDE, planned, rate
from mpq.recovery.trainable import Codes, Trainable, vectors_of
from mpq.recovery.walk import Walk

_T = TypeVar("_T")

PASSES = 8
LIMIT_BYTES = 1 << 30  # of inputs and outputs of a block in memory
NO_BLOCKS = "the model has no blocks that are called one after another as modules"


class Reconstruction(Step):
    """Codes, scales and vectors of one block after another that follow the gradient of the error at the block's output."""

    name = "reconstruction"
    title = "Block reconstruction"
    outputs_decide = True

    def hindrance(self, module: nn.Module, calibration: Data) -> str | None:
        """Blocks are called without the rest of the model, which may keep state or draw random numbers."""
        habits = habits_of(module)
        if habits is not None and (habits.state or habits.seed is not None):
            return "the model keeps state between calls or draws random numbers"
        return None

    @property
    def moving(self) -> Codes:
        """Whose codes move."""
        return "integers"

    def propose(self, task: Task, state: State) -> Proposal:
        """The state after all blocks; those whose loss did not fall on the samples kept aside are unchanged."""
        if task.calibration.samples < 2:
            return Proposal(f"{task.calibration.samples} sample is too few to train on")
        program = divided(task.module, task.layers)
        task = task if program is None else task.on(program)
        blocks = blocks_of(task.module, task.layers, task.calibration.batches[0])
        if not blocks:
            return Proposal(NO_BLOCKS)
        found = reconstruct(task, state, blocks, codes=self.moving)
        details = {"blocks": len(blocks), "kept": found.kept, "passes": found.passes, "samples": found.samples}
        how = f", {found.passes} passes over {found.samples} samples"
        how += f", stopped by the limit of {task.limits.told}" if found.stopped else ""
        if not found.kept:
            return Proposal(f"no gain on the samples kept aside{how}", details=details, stopped=found.stopped)
        about = f"for {found.kept} of {len(blocks)} blocks"
        weights, tensors = _new(found.state.weights, state.weights), _new(found.state.tensors, state.tensors)
        return Proposal(about, weights, tensors, details, found.stopped, remark=how)


def _new(after: Mapping[str, _T], before: Mapping[str, _T]) -> dict[str, _T]:
    return {name: value for name, value in after.items() if value is not before.get(name)}


@dataclass
class Reconstructed:
    """The result of block reconstruction.

    Args:
        state: of the whole model.
        passes: over the samples.
        samples: that were trained on.
        kept: blocks that changed.
        stopped: whether the emergency stop ended it.
    """

    state: State
    passes: int
    samples: int
    kept: int = 0
    stopped: bool = False


def reconstruct(task: Task, state: State, blocks: Sequence[Block], *, codes: Codes = "integers") -> Reconstructed:
    """Train one block after another; the module is unchanged afterwards.

    Args:
        task: its calibration samples serve to train on and to choose by.
        state: to begin with.
        blocks: of the model, in order.
        codes: whose codes move.

    Raises:
        DataError: if there is only one sample.
        ModelError: if no gradient flows.
        UsageError: if the work allowed is too little for the least number of passes and samples.
    """
    clock = task.limits.clock()
    report = None if task.progress is None else task.progress(Reconstruction.name)
    passes, used, aside = planned(task, PASSES, extra=3.0 + len(blocks))
    used, aside = _fitting(task.module, blocks, used, aside)
    weights = output_weights(task.module, blocks, used, task.metric, seed=task.seed)
    found = Reconstructed(state, passes, used.samples)
    samples = [*used.batches, *aside.batches]
    plain, quantized = (Walk(task.module, blocks, samples, limit_bytes=LIMIT_BYTES) for _ in range(2))
    on_disk_values = None if task.offload is None else task.values(state)  # in memory, all values are there only while samples pass
    for number, (block, weight) in enumerate(zip(blocks, weights, strict=True)):
        try:
            values = task.values(found.state) if on_disk_values is None else on_disk_values
            met = _met(task.module, values, block, samples, plain, quantized)
            del values
            training = _Training(task.module, block, found.state, met[: len(used.batches)], met[len(used.batches) :], weight, codes)
            better = training.run(passes, task.seed + number, clock.check)
        except OutOfTimeError:
            found.stopped = True
            break
        if better is not None:
            found.state, found.kept = _on_disk(better, block, task), found.kept + 1
            if on_disk_values is not None:
                on_disk_values |= as_parameters(found.state.weights, block.layers, task.offload) | dict(found.state.tensors)
        if report is not None:
            report(number + 1, len(blocks), block.name)
    return found


@dataclass
class _Samples:
    """One batch of a block: its arguments in the quantized model, and its output in the unquantized one."""

    batch: Batch
    call: Call
    wanted: Tensor


@dataclass
class _Training:
    """The training of one block.

    Args:
        module: the whole model, unquantized.
        block: of it.
        state: of the whole model.
        used: samples to train on.
        aside: samples to choose by.
        weight: of errors at the block's output, [channels, channels]; None if all count equally.
        codes: whose codes move.
    """

    module: nn.Module
    block: Block
    state: State
    used: list[_Samples]
    aside: list[_Samples]
    weight: Tensor | None
    codes: Codes
    now: Trainable = field(init=False)

    def __post_init__(self) -> None:
        layers = [layer for layer in self.block.layers if layer.name in self.state.weights]
        own = State({layer.name: self.state.weights[layer.name] for layer in layers}, self._own(dict(self.state.tensors)))
        vectors = self._own(vectors_of(self.module, layers))
        self.now = Trainable(self.module, layers, own, vectors=vectors, codes=self.codes)

    def run(self, passes: int, seed: int, check: Any) -> State | None:
        """The whole model's state with the block's best one on the samples kept aside; None if that is the first."""
        generator = torch.Generator().manual_seed(seed)
        best, least = None, self.loss(self.aside)
        steps, done = passes * len(self.used), 0
        for _ in range(passes if self.now.wanted else 0):
            for index in torch.randperm(len(self.used), generator=generator).tolist():
                check()
                self._step(self.used[index], rate(done / steps))
                done += 1
            if (loss := self.loss(self.aside)) < least:
                best, least = self.now.snapshot(), loss
        return None if best is None else self.state.changed(*best)

    def loss(self, samples: Sequence[_Samples]) -> float:
        """The mean loss of some batches."""
        with swapped(self.module, self._own(self.now.values())), torch.no_grad():
            losses = [float(self._loss(each)) * each.batch.size for each in samples]
        mean = math.fsum(losses) / sum(each.batch.size for each in samples)
        return mean if math.isfinite(mean) else math.inf

    def _step(self, samples: _Samples, share: float) -> None:
        values, wanted, part = self._own(self.now.values()), self.now.wanted, self.block.module
        path = f"through '{self.block.name}'"
        loss, gradients = loss_gradients(self.module, values, wanted, lambda: self._loss(samples), path=path, part=part)
        if math.isfinite(loss):
            self.now.step(gradients, share)

    def _loss(self, samples: _Samples) -> Tensor:
        away = by_channel(samples.call.output(self.block.module).float() - samples.wanted.float(), self.block, samples.batch)
        weighted = away if self.weight is None else away @ self.weight
        return (weighted * away).mean()

    def _own(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in values.items() if self.block.holds(name)}


def _on_disk(state: State, block: Block, task: Task) -> State:
    """The same state, with the codes of a block on disk where weights are kept there."""
    own = {layer.name: on_disk(state.weights[layer.name], task.offload) for layer in block.layers if layer.name in state.weights}
    return state if task.offload is None else state.changed(own, {})


def _met(
    module: nn.Module, values: Mapping[str, Tensor], block: Block, batches: Sequence[Batch], plain: Walk, quantized: Walk
) -> list[_Samples]:
    """What a block gets in the quantized model, and what it gives in the unquantized one, batch by batch."""
    names = [layer.name for layer in block.layers]
    plain.to(names)
    wanted = plain.outputs()
    with swapped(module, values):
        quantized.to(names)
        calls = quantized.calls()
    return [_Samples(*each) for each in zip(batches, calls, wanted, strict=True)]


def _fitting(module: nn.Module, blocks: Sequence[Block], used: Data, aside: Data) -> tuple[Data, Data]:
    """As many samples, to train on and kept aside, as fit in memory with the inputs and outputs of the first or the last block."""
    batch = used.batches[0]
    largest = max(call_of(module, block, batch).bytes + output_of(module, block, batch).nbytes for block in (blocks[0], blocks[-1]))
    most = int(LIMIT_BYTES / largest * batch.size)
    if most >= used.samples:
        return used, aside
    return used.spread(max(1, most)), aside.spread(math.ceil(ASIDE * max(1, most)))
