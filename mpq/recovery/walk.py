"""A walk through the blocks of a model, over all samples: blocks already passed are not run again; they return their earlier outputs.

Recovery goes from block to block. With whole forward passes the cost would grow with the square of the number of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mpq.calibration.input_moments import plain_kernels
from mpq.data.batch import Batch
from mpq.models.running.forward import forward
from mpq.models.running.habits import habits_of
from mpq.models.running.kept_state import copied
from mpq.models.running.swap import forwards_replaced
from mpq.recovery.blocks import Block, Call, call_of, main_tensor, whole_output_of

_T = TypeVar("_T")

LIMIT_BYTES = 1 << 30  # of outputs of one block


class Walk:
    """Forward passes of a model from a block on that moves through it.

    Whether a model can be continued like this is tried with the first batch at each block: if the next one does not get exactly the same
    arguments as in a whole pass, as where a skip connection goes around blocks, whole passes are run from then on.

    Args:
        module: the model.
        blocks: of it, in order.
        batches: all samples.
        limit_bytes: of outputs in memory; with more, whole passes are run.

    Attributes:
        passed: how many blocks lie behind.
        skips: whether they are skipped.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], batches: Sequence[Batch], *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._module, self._blocks, self._batches, self._limit = module, blocks, batches, limit_bytes
        self._outputs: list[list[Any]] = []  # of each block that is passed
        self._found: list[Any] = []
        habits = habits_of(module)
        self.passed, self.skips = 0, habits is None or not (habits.state or habits.seed is not None)

    @contextmanager
    def at(self, number: int) -> Iterator[Batch]:
        """Inside the `with`, a forward pass of batch `number`, which it gives, skips the blocks that are passed."""
        behind = zip(self._blocks, self._outputs, strict=False)
        with forwards_replaced([(block.module, _returning(outputs[number])) for block, outputs in behind]):
            yield self._batches[number]

    def calls(self) -> list[Call]:
        """The arguments of the present block in each batch, with the values that the model has now."""
        return [self._run(number, call_of) for number in range(len(self._batches))]

    def outputs(self) -> list[Tensor]:
        """The main output of the present block in each batch, with the values that the model has now."""
        self._found = [self._run(number, whole_output_of) for number in range(len(self._batches))]
        return [main_tensor(output) for output in self._found]

    def to(self, layers: Sequence[str]) -> None:
        """Move on to the block that holds all these layers, if one does; back to the start if it lies behind."""
        held = [number for number, block in enumerate(self._blocks) if {layer.name for layer in block.layers} >= set(layers)]
        if held and held[0] < self.passed:
            self.passed, self.skips, self._outputs = 0, False, []
        while held and self.passed < held[0]:
            self.advance()

    def advance(self) -> None:
        """Pass the present block, with the outputs that were asked for last, or else the values that the model has now."""
        if self.skips and not self._found:
            first = self._run(0, whole_output_of)
            size = sum(leaf.nbytes for leaf in tree_leaves(first) if isinstance(leaf, Tensor))
            self.skips = size / self._batches[0].size * sum(batch.size for batch in self._batches) <= self._limit
            if self.skips:
                self._found = [first, *(self._run(number, whole_output_of) for number in range(1, len(self._batches)))]
        self.passed += 1
        self._outputs[-1:] = [[tree_map(_hollow, output) for output in outputs] for outputs in self._outputs[-1:]]
        self._outputs.append(self._found)
        self._found = []
        self.skips = self.skips and self._continues()
        if not self.skips:
            self._outputs = []

    def _run(self, number: int, function: Callable[[nn.Module, Block, Batch], _T]) -> _T:
        with self.at(number) as batch:
            return function(self._module, self._blocks[self.passed], batch)

    def _continues(self) -> bool:
        """Whether the first batch reaches the next block, or the end, with the same values as in a whole pass."""
        with suppress(Exception):  # a model may do anything with what an earlier block did not give
            with self.at(0) as batch:
                found = self._seen(batch)
            return _same(found, self._seen(self._batches[0]))
        return False

    def _seen(self, batch: Batch) -> Any:
        if self.passed < len(self._blocks):
            call = call_of(self._module, self._blocks[self.passed], batch)
            return call.args, dict(call.kwargs)
        with plain_kernels(self._module):
            return tuple(forward(self._module, batch))


def _returning(output: Any) -> Callable[..., Any]:
    """A forward pass that runs nothing and gives a copy of `output`."""
    return lambda *_, **__: copied(output)


def _hollow(leaf: Any) -> Any:
    """The same without memory: not-a-number everywhere, so that whatever depends on it differs from a whole pass."""
    if not isinstance(leaf, Tensor):
        return leaf
    empty = math.nan if leaf.is_floating_point() or leaf.is_complex() else 0
    return torch.full((), empty, dtype=leaf.dtype, device=leaf.device).expand(leaf.shape)


def _same(one: Any, other: Any) -> bool:
    ours, theirs = ([leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in (one, other))
    return len(ours) == len(theirs) and all(torch.equal(left, right) for left, right in zip(ours, theirs, strict=True))
