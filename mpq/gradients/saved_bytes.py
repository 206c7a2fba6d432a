"""How much memory a forward pass keeps for its backward pass, in all and by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from mpq.data.batch import Batch
from mpq.gradients.error_gradients import differentiable
from mpq.models.running.forward import forward
from mpq.models.running.swap import hooked


@dataclass(frozen=True)
class Saved:
    """Bytes, without the model's own tensors.

    Args:
        whole: kept by a plain forward pass.
        inside: the part of it that the blocks keep.
        inputs: the tensors that the blocks are called with.
        largest: kept by the block that keeps most.
        outputs: values in the outputs, which are counted on the way.
    """

    whole: int
    inside: int = 0
    inputs: int = 0
    largest: int = 0
    outputs: int = 0

    @property
    def recomputed(self) -> int:
        """Kept where blocks run again in the backward pass, one at a time."""
        return self.whole - self.inside + self.inputs + self.largest


def saved_bytes(module: nn.Module, batch: Batch, blocks: Sequence[nn.Module] = ()) -> Saved:
    """What one forward pass with gradients of all weights keeps."""
    watch = _Watch(module)
    weights = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
    handles = [block.register_forward_pre_hook(watch.enter, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(watch.leave) for block in blocks]
    with hooked(handles), differentiable(module, weights), saved_tensors_hooks(watch.pack, lambda tensor: tensor):
        outputs = sum(output.numel() for output in forward(module, batch, gradients=True))
    seen, inputs = sum(watch.seen.values()), sum(watch.inputs.values())
    return Saved(seen, sum(watch.by_block), inputs, max(watch.by_block, default=0), outputs)


class _Watch:
    """Counts each storage once."""

    def __init__(self, module: nn.Module) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        self.seen: dict[int, int] = {}
        self.inputs: dict[int, int] = {}
        self.by_block: list[int] = []

    def pack(self, tensor: Tensor) -> Tensor:
        self._count(tensor, self.seen)
        return tensor

    def enter(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._count(leaf, self.inputs)
        self.by_block.append(-sum(self.seen.values()))

    def leave(self, *_: Any) -> None:
        self.by_block[-1] += sum(self.seen.values())

    def _count(self, tensor: Tensor, into: dict[int, int]) -> None:
        if tensor.layout is not torch.strided:  # sparse tensors have no single storage, and come from the data
            return
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            into[storage.data_ptr()] = storage.nbytes()
