"""One batch: what a call of the model takes, and how batches are cut and joined.

A sample is one index of the leading dimension. A tensor of a batch whose leading dimension is not the batch's (a table that
all samples share) goes whole with every sample, and so does anything that is not a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.errors import DataError


@dataclass(frozen=True, eq=False)
class Batch:
    """What one call of the model takes, and the right answers where they are known.

    Args:
        args: positional arguments; tensors may lie inside tuples, lists and dicts.
        kwargs: keyword arguments.
        labels: one row per sample; never given to the model.
        sampled: for every leaf of (args, kwargs, labels), whether it holds one row per sample. Found by the leading dimension
            unless given; samples that are cut out of a batch keep its answer, so that a table of one row stays a table.
        mask: which positions of each sample count, [samples, positions]; others are padding. None counts all. `data/masks.py` finds it.

    Raises:
        DataError: if there is no tensor to count samples by, or the labels or the mask are of another number.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    sampled: tuple[bool, ...] = ()
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not any(tensor.ndim for tensor in self.tensors):
            raise DataError("a batch holds no tensor of samples: give tensors whose first dimension counts the samples")
        if self.labels is not None and (self.labels.ndim == 0 or len(self.labels) != self.size):
            raise DataError(f"{self.size} samples come with labels of shape {list(self.labels.shape)}: give one label per sample")
        if self.mask is not None:
            if self.mask.ndim < 2 or len(self.mask) != self.size:
                raise DataError(f"{self.size} samples come with a mask of shape {list(self.mask.shape)}: give [samples, positions]")
            object.__setattr__(self, "mask", self.mask.bool())
        if not self.sampled:
            size = self.size
            rows = (isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == size for leaf in self.leaves)
            object.__setattr__(self, "sampled", tuple(rows))

    @property
    def leaves(self) -> list[Any]:
        """All values of (args, kwargs, labels), out of their containers; beside `sampled`."""
        return pytree.tree_leaves((self.args, self.kwargs, self.labels))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that the model is given, positional ones first."""
        return tuple(leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor))

    @property
    def size(self) -> int:
        """Number of samples: the leading dimension of the first tensor that has one."""
        return next(len(tensor) for tensor in self.tensors if tensor.ndim)

    @property
    def shapes(self) -> str:
        """Shape of one sample, for people: "[3, 32, 32]", or "input_ids [16], attention_mask [16]"."""
        given = [_shape(leaf) for leaf in pytree.tree_leaves(self.args) if isinstance(leaf, Tensor)]
        named = [f"{name} {_shape(leaf)}" for name, leaf in self.kwargs.items() if isinstance(leaf, Tensor)]
        return ", ".join(given + named)

    def select(self, indices: Sequence[int] | Tensor) -> Batch:
        """The samples at `indices`, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        return self._map(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    def narrow(self, start: int, length: int) -> Batch:
        """The `length` samples from `start` on, as views."""
        return self._map(lambda tensor: tensor.narrow(0, start, length))

    def in_dtype(self, dtype: torch.dtype) -> Batch:
        """The same with every floating-point tensor in `dtype`."""
        floats = (isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in self.leaves)
        return self._rebuilt([leaf.to(dtype) if wanted else leaf for leaf, wanted in zip(self.leaves, floats, strict=True)], self.mask)

    def _map(self, cut: Callable[[Tensor], Tensor]) -> Batch:
        leaves = [cut(leaf) if sampled else leaf for leaf, sampled in zip(self.leaves, self.sampled, strict=True)]
        return self._rebuilt(leaves, None if self.mask is None else cut(self.mask))

    def _rebuilt(self, leaves: list[Any], mask: Tensor | None) -> Batch:
        structure = pytree.tree_structure((self.args, self.kwargs, self.labels))
        args, kwargs, labels = pytree.tree_unflatten(leaves, structure)
        return replace(self, args=args, kwargs=kwargs, labels=labels, mask=mask)


def regroup(batches: Iterable[Batch], batch_size: int) -> tuple[Batch, ...]:
    """The same samples in the same order, up to `batch_size` at once; samples that cannot be joined start a new batch."""
    groups: list[list[Batch]] = []
    room = 0
    for batch in batches:
        start = 0
        while start < batch.size:
            if room == 0 or not _joinable(groups[-1][0], batch):
                groups.append([])
                room = batch_size
            length = min(room, batch.size - start)
            groups[-1].append(batch.narrow(start, length))
            start, room = start + length, room - length
    return tuple(_join(group) for group in groups)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape[1:]))


def _joinable(left: Batch, right: Batch) -> bool:
    alike = pytree.tree_structure((left.args, left.kwargs, left.labels)) == pytree.tree_structure((right.args, right.kwargs, right.labels))
    masks = [None if batch.mask is None else batch.mask.shape[1:] for batch in (left, right)]
    return (
        alike and masks[0] == masks[1] and left.sampled == right.sampled and all(map(_same_kind, left.leaves, right.leaves, left.sampled))
    )


def _same_kind(left: Any, right: Any, sampled: bool) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype:
        return False
    return left.shape[1:] == right.shape[1:] if sampled else torch.equal(left, right)


def _join(group: Sequence[Batch]) -> Batch:
    first = group[0]
    if len(group) == 1:
        return first
    columns = zip(*(batch.leaves for batch in group), strict=True)
    joined = [torch.cat(column) if sampled else column[0] for column, sampled in zip(columns, first.sampled, strict=True)]
    masks = [batch.mask for batch in group if batch.mask is not None]
    return first._rebuilt(joined, torch.cat(masks) if masks else None)
