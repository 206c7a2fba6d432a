"""Sequential re-quantization: one layer after another, each for the inputs that the layers before it, already quantized, will give it.

A layer that is quantized alone is fitted to the inputs x of the unquantized model. Behind other quantized layers it meets x' instead. So
its codes are chosen for W' instead of W, and for the inputs x':

    W' = argmin over V of E |W x - V x'|^2 = W E[x x'^T] E[x' x'^T]^-1

which takes back a part of the errors made before it, as the asymmetric calibration of GPTAQ does (Li et al. 2025, arXiv 2504.02692).
Layers that share their input go together; all those before them must be quantized by then: with the layers of a whole block at
once, each takes back the same error once more, and the model gets worse than it was (`benchmarks/log.md`). E[x' x'^T] is damped
toward the identity so that a small sample does not dominate.

A layer that is used twice with others in between, such as a table tied to the head, or whose inputs are unknown, is not changed.

Cost: one forward pass over the data with the unquantized model, or several where the inputs of all layers would take too much memory;
and one for each set of layers with the same input, up to these layers, from their block on where the model can be continued there
(`recovery/walk.py`). A matrix with c columns takes about 64 c^2 bytes and 6 c^3
operations. That is estimated first (`recovery/cost.py`): sets that are too large are not changed, and where the work allowed does not
suffice for all samples, some are used, spread evenly over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mpq.calibration.accumulate import Moments
from mpq.calibration.input_moments import InputWatch, plain_kernels
from mpq.calibration.placement import Placement
from mpq.data.dataset import Data
from mpq.errors import MpqError
from mpq.models.running.fake_quantized import Variants, as_parameters, on_disk
from mpq.models.running.forward import forward
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer
from mpq.recovery.base import OutOfTimeError, Progress, Proposal, State, Step, Task
from mpq.recovery.blocks import blocks_of
from mpq.recovery.cost import SetCost, affordable, forward_operations, set_cost
from mpq.recovery.order import Calls, Use, recorded, stages
from mpq.recovery.walk import Walk
from mpq.shown import by_reason, counted
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Statistics

LIMIT_BYTES = 1 << 30  # of vectors of the unquantized model
_DAMPING = 0.3  # of the mean of the diagonal


class Sequential(Step):
    """Codes chosen one layer after another."""

    name = "sequential"
    title = "Sequential re-quantization"
    outputs_decide = True

    def propose(self, task: Task, state: State) -> Proposal:
        """New codes for all layers that follow others, at most as many samples and sets of layers as the work allows."""
        clock, finished = task.limits.clock(), 0
        report = None if task.progress is None else task.progress(self.name)

        def watched(done: int, total: int, layer: str) -> None:
            nonlocal finished
            finished = done
            if report is not None:
                report(done, total, layer)

        try:
            found = in_sequence(
                task.variants, state.weights, task.calibration, work=task.limits.work, on_progress=watched, on_batch=clock.check
            )
        except OutOfTimeError:
            return Proposal(f"stopped by the limit of {task.limits.told}, with {finished} sets of layers done", stopped=True)
        details = {"layers": len(found.weights), "samples": found.samples, "left": dict(found.left)}
        if not found.weights:
            reason = next(iter(found.left.values()), "no layer follows another through operations that mpq understands")
            return Proposal(reason, details=details)
        few = f", on {found.samples} of {task.calibration.samples} samples" if found.samples < task.calibration.samples else ""
        left = "".join(f"; {counted(len(names), 'layer')} left unchanged: {reason}" for reason, names in found.reasons.items())
        about = f"for {counted(len(found.weights), 'layer')}"
        return Proposal(about, found.weights, details=details, remark=few + left)


@dataclass(frozen=True)
class Sequenced:
    """What quantizing in sequence gave.

    Args:
        weights: new codes by layer name.
        samples: that were used.
        left: why layers were left as they were because of their cost, by name.
    """

    weights: dict[str, QuantizedWeight]
    samples: int
    left: dict[str, str]

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Names of the layers that were left by reason."""
        return by_reason(self.left)


def in_sequence(
    variants: Variants,
    weights: Mapping[str, QuantizedWeight],
    data: Data,
    *,
    work: float = math.inf,
    limit_bytes: int = LIMIT_BYTES,
    on_progress: Progress | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Sequenced:
    """New codes, under the same schemes, for those of `weights` that follow others.

    Args:
        variants: of the unquantized model, which is unchanged afterwards.
        weights: as the quantizer left them, all of them, by layer name.
        data: calibration samples.
        work: operations allowed, by the estimate.
        limit_bytes: of vectors in memory at a time; more than that where one set of layers needs it.
        on_progress: called after each set of layers.
        on_batch: called before each forward pass over a batch; an exception from it ends the work.
    """
    module, layers = variants.module, variants.layers
    order = stages(module, list(layers.values()), data)
    ordered = {use.name for stage in order for use in stage}
    offload = variants.offload
    limit_bytes = limit_bytes if offload is None else min(limit_bytes, offload.limit)
    values = as_parameters({name: weight for name, weight in weights.items() if name not in ordered}, layers.values(), offload)
    first = 0 if values else 1  # the inputs of the first set are those of the unquantized model, if no other layer is quantized
    costs = [_cost(stage, layers) for stage in order[first:]]
    blocks = blocks_of(module, list(layers.values()), data.batches[0])
    allowed = affordable(costs, forward_operations(module, layers.values(), data) * data.samples, data.samples, work, blocks=len(blocks))
    left = {use.name: reason for number, reason in allowed.left.items() for use in order[first + number]}
    if allowed.samples < data.samples:
        data = data.spread(max(1, allowed.samples))
    found: dict[str, QuantizedWeight] = {}
    kept: list[Calls] = []
    walk = Walk(module, blocks, data.batches)
    for number, (stage, after) in enumerate(pairwise([*order, []])):
        names = [use.name for use in stage]
        wanted: Mapping[str, tuple[Statistics, Tensor]] = {}
        if values and names[0] not in left:
            if not kept or names[0] not in kept[0]:
                coming = [[use for use in each if use.name not in left] for each in order[number:]]
                kept = recorded(module, [layers[name] for name in _fitting(coming, limit_bytes)], data, on_batch)
            watch = _PairWatch(module, [layers[name] for name in names], [layers[use.name] for use in after[:1]])
            with swapped(module, values):
                walk.to(names)
                wanted = watch.over(walk, kept, on_batch)
        for name in names:
            weight = weights[name]
            if name in wanted:
                instead = _fitted(variants.matrix(name), *wanted[name]), wanted[name][0]
                with suppress(MpqError):  # beyond the range of fp16, as the weights themselves are not
                    weight = found[name] = on_disk(variants.quantized(name, weight.scheme, instead=instead), offload)
            values |= as_parameters({name: weight}, [layers[name]], offload)
        if on_progress is not None:
            on_progress(number + 1, len(order), names[-1])
    return Sequenced(found, data.samples, left)


def _cost(stage: Sequence[Use], layers: Mapping[str, Layer]) -> SetCost:
    chosen = [layers[use.name] for use in stage]
    return set_cost(chosen, [use.groups for use in stage], [use.values for use in stage], sum(use.kept_bytes for use in stage))


def _fitting(order: Sequence[Sequence[Use]], limit: int) -> Iterator[str]:
    """The layers of the first stages, of which all vectors fit in `limit` bytes; of one stage at least."""
    for number, stage in enumerate(order):
        limit -= sum(use.kept_bytes for use in stage)
        if number and limit < 0:
            return
        yield from (use.name for use in stage)


class _PairWatch(InputWatch):  # type: ignore[no-untyped-call]
    """Sums the vectors that a stage meets, and their products with those that it met in the unquantized model."""

    def __init__(self, module: nn.Module, stage: Sequence[Layer], after: Sequence[Layer]) -> None:
        super().__init__(module, [*stage, *after])
        self._module, self._stage = module, stage
        self._cross = [Moments() for _ in stage]
        self._unpaired: set[int] = set()
        self._partners: list[list[Tensor]] = []
        self._enough = False

    def over(self, walk: Walk, kept: Sequence[Calls], on_batch: Callable[[], None]) -> dict[str, tuple[Statistics, Tensor]]:
        """Statistics of the layers with the values that the model has now, and the mean of x x'^T in the same shape."""
        with plain_kernels(self._module):
            for number, calls in enumerate(kept):
                on_batch()
                self._partners, self._enough = [list(calls[layer.name]) for layer in self._stage], False
                try:
                    with walk.at(number) as batch, self.active():
                        forward(self._module, batch)
                except Exception:
                    if not self._enough:
                        raise
                self.forget()
                self._unpaired |= {number for number, left in enumerate(self._partners) if left}
        found = self.collected()
        paired = [(layer, self._cross[n].statistics(layer.matrix)) for n, layer in enumerate(self._stage) if n not in self._unpaired]
        return {
            layer.name: (found[layer.name], cross.hessian)
            for layer, cross in paired
            if layer.name in found and isinstance(cross, Statistics)
        }

    def _take(self, number: int, placed: Placement, group: int | None, vectors: Tensor) -> None:
        if number >= len(self._stage):  # the next stage begins
            self._enough = True
            raise InterruptedError
        super()._take(number, placed, group, vectors)
        partner = self._partners[number].pop(0) if self._partners[number] else None
        if partner is None or partner.shape != vectors.shape:  # another way through the model, as experts have them
            self._unpaired.add(number)
            return
        total = self._cross[number].at(placed, self._layers[number].matrix[1])
        total.add(partner.mT @ vectors.float(), vectors.shape[1], placed, group)


def _fitted(matrix: Tensor, statistics: Statistics, cross: Tensor) -> Tensor:
    """W E[x x'^T] E[x' x'^T]^-1, damped, for each part of the rows with separate inputs."""
    second = statistics.hessian.to(matrix.device).double()
    mean = second.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    damping = torch.where(mean > 0, _DAMPING * mean, 1.0) * torch.eye(matrix.shape[1], dtype=torch.float64, device=second.device)
    change = torch.linalg.solve(second + damping, (cross.to(matrix.device).double() + damping).mT).mT
    parts = matrix.double().view(*change.shape[:-2], -1, matrix.shape[1])
    wanted: Tensor = (parts @ change).view(matrix.shape).float()
    return wanted
