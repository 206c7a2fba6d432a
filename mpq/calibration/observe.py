"""Sketches of one call: the inputs of the model and its layers, and the output, with the certainty of the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch
from mpq.data.masks import padding_masks
from mpq.errors import DataError, UsageError
from mpq.models.running.forward import main_output
from mpq.models.running.logits import log_likelihoods
from mpq.models.running.output_kind import are_probabilities
from mpq.records.monitor_log import PREDICTION
from mpq.records.sketch import Sketch, add_to
from mpq.records.stored_sketches import ENTROPY, INPUT, MARGIN, OUTPUT

_MOST = 4096  # values of a tensor that are examined
_ROWS = 64  # rows of an output for which entropy and margin are computed


class Observer:
    """Adds observed tensors to `sketches`, without padding; `row` has what one call was like.

    Args:
        module: the model; None if only its inputs and outputs can be seen.
        layers: names of its modules whose inputs are watched; unknown names are ignored.

    Raises:
        UsageError: if there are such modules in a TorchScript program, which calls no hooks inside.
    """

    def __init__(self, module: nn.Module | None, layers: Iterable[str] = ()) -> None:
        known = {} if module is None else dict(module.named_modules())
        self._watched = {name: known[name] for name in layers if name in known and name}
        if self._watched and isinstance(module, torch.jit.ScriptModule):
            raise UsageError("layers inside a TorchScript program cannot be watched: leave `layers` out, or load the model as a module")
        self.sketches: dict[str, Sketch] = {}
        self.row: dict[str, float | None] = {}
        self._samples, self._wanted, self._masks = 1, True, list[Tensor]()
        self._seen: list[tuple[str, NDArray[np.float32]]] = []  # in this call

    @contextmanager
    def hooked(self, inputs: Any) -> Iterator[None]:
        """Within the `with`, hooks on the watched modules for a call with these inputs."""
        handles = self.attach(inputs)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._add_seen()

    def attach(self, inputs: Any, *, row: bool = True) -> list[Any]:
        """Attach hooks to the watched modules for a call with these inputs, whose row is wanted or not; the caller removes them.

        What they see is added by `see`, so that a call that fails does not count.
        """
        self._seen = []
        self._samples, self._wanted, self.row = samples_in(inputs), row, {}
        self._masks = masks_in(inputs)
        return [
            module.register_forward_pre_hook(lambda _, args, name=name: self._add(f"{name}.input", args))
            for name, module in self._watched.items()
        ]

    def see(self, inputs: Any, result: Any) -> None:
        """Add the inputs of the model and its main output; padding is known where `attach` has seen the inputs."""
        self._samples = samples_in(inputs)
        self._add(INPUT, inputs)
        output = first_float(main_output(result)[1])
        if output is not None:
            self._see_output(output)
        self._add_seen()

    def _see_output(self, output: Tensor) -> None:
        self._count(OUTPUT, output)
        if has_classes(output):
            entropy, margin = certainty(without_padding(output, self._masks))
            self._count(ENTROPY, entropy)
            self._count(MARGIN, margin)
            first = without_padding(output[:1], [mask[:1] for mask in self._masks]).reshape(-1, output.shape[-1])
            if self._wanted and len(first):
                self.row[PREDICTION] = int(first.detach()[-1].argmax())

    def _add(self, name: str, values: Any) -> None:
        tensor = first_float(values)
        if tensor is not None:
            self._count(name, tensor)

    def _count(self, name: str, tensor: Tensor) -> None:
        self._seen.append((name, some(without_padding(tensor, self._masks)).numpy()))

    def _add_seen(self) -> None:
        """Add what one call has shown, all tensors in one pass: operations on a few cold values cost more than their number."""
        if not self._seen:
            return
        names, values = zip(*self._seen, strict=True)
        self._seen = []
        add_to([self.sketches.setdefault(name, Sketch()) for name in names], values, samples=self._samples)
        if self._wanted:
            self.row |= _facts(names, values)


def _facts(names: Sequence[str], values: Sequence[NDArray[np.float32]]) -> dict[str, float | None]:
    """The mean and the standard deviation of each array that has values; None where one is not finite."""
    found: dict[str, float | None] = {}
    with np.errstate(all="ignore"):
        for name, own in zip(names, values, strict=True):
            if not len(own):
                continue
            mean = float(np.add.reduce(own)) / len(own)
            around = own - np.float32(mean)
            facts = {"mean": mean, "deviation": math.sqrt(float(around @ around) / len(own))}  # a third of the time of `mean` and `std`
            found |= {f"{name} {kind}": value if math.isfinite(value) else None for kind, value in facts.items()}
    return found


def samples_in(inputs: Any) -> int:
    """The number of samples of a call: the leading dimension of its first tensor."""
    first = next((leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim), None)
    return 1 if first is None else len(first)


def masks_in(inputs: Any) -> list[Tensor]:
    """The masks of a call's positions that are not padding, bool [samples, positions]; none where all positions are data.

    Args:
        inputs: positional and named ones.
    """
    args, kwargs = inputs
    if not kwargs:  # a mask is known by its name
        return []
    try:
        return padding_masks(Batch(tuple(args), dict(kwargs)))
    except DataError:  # no tensors
        return []


def mask_of(tensor: Tensor, masks: Iterable[Tensor]) -> Tensor | None:
    """The first of the masks [samples, positions] that fits a tensor [samples, positions, ...]."""
    return next((mask for mask in masks if tensor.shape[:2] == mask.shape), None)


def without_padding(tensor: Tensor, masks: Iterable[Tensor]) -> Tensor:
    """A tensor [samples, positions, ...] as [positions that are data, ...], by the mask of its shape; unchanged if there is none."""
    mask = mask_of(tensor, masks)
    return tensor if mask is None else tensor[mask.to(tensor.device)]


def some(tensor: Tensor) -> Tensor:
    """A copy of up to 4,096 values of a tensor as float32 on the CPU, evenly spaced by a step without a common divisor with any dimension.

    So every channel has its share, whatever the shape.
    """
    flat = tensor.detach().reshape(-1)
    step = _step(len(flat))
    return torch.empty(-(-len(flat) // step), dtype=torch.float32).copy_(flat[::step])


@lru_cache(1024)
def _step(values: int) -> int:
    """The distance of the values of a tensor that are examined."""
    step = max(1, -(-values // _MOST))
    while step > 1 and math.gcd(step, values) > 1:
        step += 1
    return step


def certainty(output: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy in nats, and difference of the two largest probabilities, of up to 64 evenly spaced rows of an output [..., classes].

    Rows that sum to one are probabilities, all others are logits.
    """
    rows = output.detach().reshape(-1, output.shape[-1])
    some_rows = rows[:: max(1, -(-len(rows) // _ROWS))].float()
    logarithms = log_likelihoods(some_rows, probabilities=are_probabilities(some_rows))
    chances = logarithms.exp()
    best = chances.topk(2, dim=-1).values
    return -(chances * logarithms.nan_to_num(neginf=0.0)).sum(-1), best[:, 0] - best[:, 1]


def has_classes(output: Tensor) -> bool:
    """Whether the last dimension of an output may be classes; that of an image or of a single value is not."""
    return output.ndim in (2, 3) and output.shape[-1] > 1


def first_float(values: Any) -> Tensor | None:
    """The first floating-point tensor inside, None if there is none."""
    if isinstance(values, tuple) and values and isinstance(values[0], Tensor) and torch.is_floating_point(values[0]):
        return values[0]  # as in most calls, in a tenth of the time
    return next((leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor) and torch.is_floating_point(leaf)), None)
