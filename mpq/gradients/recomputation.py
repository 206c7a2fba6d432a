"""Activation checkpointing while gradients are computed: a model's own is turned off, and ours runs some blocks again.

`torch.utils.checkpoint` runs a part of the forward pass without a graph and again during the backward pass. Hooks on weights then see the
part twice, or not at all. With checkpointing off the part runs once, as in a plain model: the same values, with the memory that
checkpointing saves. This file holds torch's private names for it.

`recomputed` saves that memory in another way: the graph stays that of a plain forward pass, but the tensors that a block keeps for the
backward pass are dropped, and made again by a second run of the block when the first of them is needed. So of all blocks but one only the
inputs are in memory. What the hooks of `gradients/per_sample.py` keep goes the same way, by `kept_or_remade`. The values are the same bit
for bit; a block whose second run gives another output (random numbers, a changed input) raises `NotRepeatableError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint
from torch.utils._pytree import tree_leaves

from mpq.errors import ModelError
from mpq.models.running.swap import forwards_replaced

_TOLERANCE = 1e-3  # of the sum of a block's outputs: some kernels of accelerators sum in any order


class _Plain:
    """Stands in for the reentrant form, an autograd function."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        """Call `function` directly."""
        return function(*args)


def _nothing(*_: Any, **__: Any) -> Iterator[None]:
    """Stands in for the other form, a generator around the call."""
    yield


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Inside the `with`, checkpointed parts run as ordinary code."""
    before = checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator
    checkpoint.CheckpointFunction = _Plain  # type: ignore[misc, assignment, unused-ignore]
    checkpoint._checkpoint_without_reentrant_generator = _nothing  # type: ignore[assignment, unused-ignore]
    try:
        yield
    finally:
        checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator = before  # type: ignore[misc, unused-ignore]


class NotRepeatableError(ModelError):
    """A block gives another output when it runs again on the same input."""


@contextmanager
def recomputed(modules: Sequence[nn.Module], within: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Iterator[None]:
    """Inside the `with`, each call of one of these modules keeps its inputs alone, and runs again in the backward pass.

    Args:
        modules: none of them inside another.
        within: gives what the second run is done in.

    Raises:
        NotRepeatableError: in the backward pass, if a second run gives another output.
    """
    latest: list[_Call] = []

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return _Call(lambda: forward(*args, **kwargs), within, latest).first()

        return run

    with forwards_replaced([(module, wrapped(module.forward)) for module in modules]):
        yield


def kept_or_remade(tensor: Tensor) -> Callable[[], Tensor]:
    """Gives `tensor` in the backward pass: inside a recomputed block by running the block again, else because it is kept."""
    if not _RUNNING:
        return lambda: tensor
    call = _RUNNING[-1]
    number = call.drop(tensor)
    return lambda: call.get(number)


class _Call:
    """One call of a block: its tensors by the order in which they were dropped; only those of the `latest` second run are in memory."""

    def __init__(self, run: Callable[[], Any], within: Callable[[], AbstractContextManager[Any]], latest: list[_Call]) -> None:
        self._run, self._within, self._latest = run, within, latest
        self._count, self._sum = 0, 0.0
        self._into: list[Tensor] | None = None
        self._made: dict[int, Tensor] = {}

    def first(self) -> Any:
        """The call itself."""
        output = self._watched()
        self._sum = _sum_of(output)
        return output

    def drop(self, tensor: Tensor) -> int:
        """The number of a tensor; in the second run it is kept."""
        if self._into is None:
            self._count += 1
            return self._count - 1
        self._into.append(tensor.detach())
        return len(self._into) - 1

    def get(self, number: int) -> Tensor:
        """A tensor once; the next backward pass runs the block again."""
        if number not in self._made:
            self._again()
        return self._made.pop(number)

    def _again(self) -> None:
        for call in self._latest:
            call._made.clear()
        self._latest[:] = [self]
        self._into = []
        try:
            with torch.enable_grad(), self._within():
                found = _sum_of(self._watched())
            if len(self._into) != self._count or not abs(found - self._sum) <= _TOLERANCE * abs(self._sum):
                raise NotRepeatableError("a block of the model gives another output when it runs again on the same input")
            self._made = dict(enumerate(self._into))
        finally:
            self._into = None

    def _watched(self) -> Any:
        _RUNNING.append(self)
        try:
            with saved_tensors_hooks(self.drop, self.get):
                return self._run()
        finally:
            _RUNNING.pop()


_RUNNING: list[_Call] = []


def _sum_of(output: Any) -> float:
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return sum(float(leaf.detach().abs().sum(dtype=torch.float64)) for leaf in leaves)
