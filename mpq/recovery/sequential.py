"""Quantizing one layer after another, each for the inputs that the layers before it, already quantized, will give it.

A layer that is quantized alone is fitted to the inputs x of the unquantized model. Behind other quantized layers it meets x' instead. So
its codes are chosen for W' instead of W, and for the inputs x':

    W' = argmin over V of E |W x - V x'|^2 = W E[x x'^T] E[x' x'^T]^-1

which takes back a part of the errors made before it, as the asymmetric calibration of GPTAQ does (Li et al. 2025, arXiv 2504.02692).
Layers that share their input go together; all those before them must be quantized by then: with the layers of a whole block at
once, each takes back the same error once more, and the model gets worse than it was (`benchmarks/log.md`). E[x' x'^T] is damped
towards the identity, that samples too few do not decide.

A layer that comes in twice, with others in between, as a table tied to the head, and one whose inputs cannot be told, stays as it is.

Cost: one forward pass over the data with the unquantized model, or several where all that the layers meet would take too much memory;
and one for each set of layers with the same input, as far as these layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import torch
from torch import Tensor, nn

from mpq.errors import MpqError
from mpq.models.batches import Data
from mpq.models.forward import forward
from mpq.models.moments import Moments
from mpq.models.placement import Placement
from mpq.models.statistics import InputWatch, plain_kernels
from mpq.models.swap import swapped
from mpq.models.variants import Variants, as_parameter, as_parameters
from mpq.records.layer import Layer
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Statistics

LIMIT_BYTES = 1 << 30  # of vectors of the unquantized model
_DAMPING = 0.3  # of the mean of the diagonal

Calls = dict[str, list[Tensor]]
"""The vectors that each layer met in one batch, call by call."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, layer) after each set of layers."""


def in_sequence(
    variants: Variants,
    weights: Mapping[str, QuantizedWeight],
    data: Data,
    *,
    limit_bytes: int = LIMIT_BYTES,
    on_progress: Progress | None = None,
) -> dict[str, QuantizedWeight]:
    """New codes, under the same schemes, for those of `weights` that follow others.

    Args:
        variants: of the unquantized model, which is unchanged afterwards.
        weights: as the quantizer left them, all of them, by layer name.
        data: calibration samples.
        limit_bytes: of vectors in memory at a time; more than that where one set of layers needs it.
        on_progress: told after each set of layers; what it raises ends the work.
    """
    module, layers = variants.module, variants.layers
    order, sizes = stages(module, list(layers.values()), data)
    ordered = {name for stage in order for name in stage}
    values = as_parameters({name: weight for name, weight in weights.items() if name not in ordered}, layers.values())
    found: dict[str, QuantizedWeight] = {}
    kept: list[Calls] = []
    for number, (stage, after) in enumerate(pairwise([*order, []])):
        if not kept or stage[0] not in kept[0]:
            kept = _recorded(module, [layers[name] for name in _fitting(order[number:], sizes, limit_bytes)], data)
        watch = _PairWatch(module, [layers[name] for name in stage], [layers[name] for name in after[:1]])
        wanted = watch.over(values, data, kept) if values else {}
        for name in stage:
            weight = weights[name]
            if name in wanted:
                instead = _fitted(variants.matrix(name), *wanted[name]), wanted[name][0]
                with suppress(MpqError):  # beyond the range of fp16, as the weights themselves are not
                    weight = found[name] = variants.quantized(name, weight.scheme, instead=instead)
            values[layers[name].parameters[0]] = as_parameter(weight, layers[name])
        if on_progress is not None:
            on_progress(number + 1, len(order), stage[-1])
    return found


def stages(module: nn.Module, layers: Sequence[Layer], data: Data) -> tuple[list[list[str]], dict[str, int]]:
    """The layers that come in once, in the order in which they do, those that share their input together; and bytes of their vectors."""
    watch, batch = _OrderWatch(module, layers), data.batches[0]
    with plain_kernels(module), watch.active():
        forward(module, batch)
    order: list[list[int]] = []
    sizes = dict.fromkeys(range(len(layers)), 0)
    last: Tensor | None = None
    for number, vectors in watch.calls:
        if not order or not (vectors is last or number in order[-1]):
            order.append([])
        order[-1] += [] if number in order[-1] else [number]
        sizes[number] += 0 if vectors is last else 4 * vectors.numel() * data.samples // batch.size
        last = vectors
    times = Counter(number for stage in order for number in stage) + Counter(watch.looked_up)
    once = [[layers[number].name for number in stage if times[number] == 1] for stage in order]
    return [stage for stage in once if stage], {layers[number].name: size for number, size in sizes.items()}


def _fitting(order: Sequence[Sequence[str]], sizes: Mapping[str, int], limit: int) -> Iterator[str]:
    """The layers of the first stages, of which all vectors fit in `limit` bytes; of one stage at least."""
    for number, stage in enumerate(order):
        limit -= sum(sizes[name] for name in stage)
        if number and limit < 0:
            return
        yield from stage


def _recorded(module: nn.Module, layers: Sequence[Layer], data: Data) -> list[Calls]:
    """What `layers` meet in the unquantized model, batch by batch."""
    found = []
    with plain_kernels(module):
        for batch in data.batches:
            watch = _OrderWatch(module, layers)
            with watch.active():
                forward(module, batch)
            calls: Calls = {layer.name: [] for layer in layers}
            for number, vectors in watch.calls:
                calls[layers[number].name].append(vectors)
            found.append(calls)
    return found


class _OrderWatch(InputWatch):  # type: ignore[no-untyped-call]
    """Keeps the vectors that layers meet, call by call; those that are one tensor are kept as one."""

    def __init__(self, module: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(module, layers)
        self.calls: list[tuple[int, Tensor]] = []
        self._before: Tensor | None = None  # held, so that no other comes to lie in its memory

    def _take(self, number: int, placed: Placement, group: int | None, vectors: Tensor) -> None:
        same = self._before is not None and _place(vectors) == _place(self._before)
        self.calls.append((number, self.calls[-1][1] if same else vectors.float().clone()))  # what follows may write to them
        self._before = vectors


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor._version


class _PairWatch(InputWatch):  # type: ignore[no-untyped-call]
    """Sums the vectors that a stage meets, and their products with those that it met in the unquantized model."""

    def __init__(self, module: nn.Module, stage: Sequence[Layer], after: Sequence[Layer]) -> None:
        super().__init__(module, [*stage, *after])
        self._module, self._stage = module, stage
        self._cross = [Moments() for _ in stage]
        self._unpaired: set[int] = set()
        self._partners: list[list[Tensor]] = []
        self._enough = False

    def over(self, values: Mapping[str, Tensor], data: Data, kept: Sequence[Calls]) -> dict[str, tuple[Statistics, Tensor]]:
        """Statistics of the layers while `values` stand in others, and the mean of x x'^T in the same shape."""
        with plain_kernels(self._module), swapped(self._module, values):
            for batch, calls in zip(data.batches, kept, strict=True):
                self._partners, self._enough = [list(calls[layer.name]) for layer in self._stage], False
                try:
                    with self.active():
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
    """W E[x x'^T] E[x' x'^T]^-1, damped, for each part of the rows that has inputs of its own."""
    second = statistics.hessian.double()
    mean = second.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    damping = torch.where(mean > 0, _DAMPING * mean, 1.0) * torch.eye(matrix.shape[1], dtype=torch.float64, device=second.device)
    change = torch.linalg.solve(second + damping, (cross.double() + damping).mT).mT
    parts = matrix.double().view(*change.shape[:-2], -1, matrix.shape[1])
    wanted: Tensor = (parts @ change).view(matrix.shape).float()
    return wanted
