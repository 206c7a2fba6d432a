"""One batch: the inputs of a model call, and how batches are cut and joined.

A sample is one index of the axis that counts samples, by default the leading one. A tensor without that many entries (a table that all
samples share) goes unchanged with every sample, and so does anything that is not a tensor. If no axis counts samples (a graph, bags of
words, packed sequences), the whole batch is one sample, which is never cut or joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.data.sparse import same_tensors
from mpq.errors import DataError

LABEL_KEYS = ("labels", "label", "y", "targets", "target")
"""Names under which data holds labels."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The inputs of one model call, and the labels if known.

    Args:
        args: positional arguments; tensors may be inside tuples, lists and dicts.
        kwargs: keyword arguments.
        labels: one row per sample or, if the whole batch is one sample, in the shape of its output; never passed to the model.
        sampled: for every leaf of (args, kwargs, labels), whether it has one row per sample. Determined by the leading dimension unless
            given; samples that are cut out of a batch inherit it, so that a table of one row stays a table.
        mask: which positions of each sample count, [samples, positions]; others are padding. None: all count. `data/masks.py` finds it.
        whole: whether the batch is one sample: its size is 1, and it is never cut or joined.
        axis: the axis of the tensors that counts the samples. A tensor that has the number of samples only along its rows is cut along its
            rows.
        axes: for every leaf, the axis of its samples; determined from `axis` together with `sampled`.
        listed: paths of lists in the outputs that have one value for each sample, whose tensors are stacked; "" is the returned value.
        output_axes: the axis of the samples in outputs by name, if it cannot be determined by `axis` and the number of samples.

    Raises:
        DataError: if no tensor counts the samples, or the labels or the mask have a different number.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    sampled: tuple[bool, ...] = ()
    mask: Tensor | None = None
    whole: bool = False
    axis: int = 0
    output_axes: Mapping[str, int] = field(default_factory=dict)
    axes: tuple[int, ...] = ()
    listed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any(tensor.ndim > (0 if self.whole else self.axis) for tensor in self.tensors):
            where = "first dimension counts the samples" if self.axis == 0 else f"dimension {self.axis} counts the samples"
            raise DataError(f"a batch holds no tensor of samples: give tensors whose {where}")
        if not self.whole and self.labels is not None and (self.labels.ndim == 0 or len(self.labels) != self.size):
            raise DataError(f"{self.size} samples come with labels of shape {list(self.labels.shape)}: give one label per sample")
        if self.mask is not None:
            mask = self.mask.unsqueeze(0) if self.whole and self.mask.ndim == 1 else self.mask
            if mask.ndim < 2 or len(mask) != self.size:
                raise DataError(f"{self.size} samples come with a mask of shape {list(mask.shape)}: give [samples, positions]")
            object.__setattr__(self, "mask", mask.bool())
        if not self.sampled:
            *given, _ = self.leaves
            axes = [*map(self._axis_of, given), 0 if self.labels is not None else -1]
            object.__setattr__(self, "axes", tuple(max(axis, 0) for axis in axes))
            object.__setattr__(self, "sampled", tuple(not self.whole and axis >= 0 for axis in axes))
        elif not self.axes:
            object.__setattr__(self, "axes", tuple(max(self._axis_of(leaf), 0) for leaf in self.leaves))

    def _axis_of(self, leaf: Any) -> int:
        """The axis of a leaf that has as many entries as there are samples, -1 if there is none."""
        # a sparse matrix is more often an adjacency matrix than rows of samples
        if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
            return -1
        return next((axis for axis in (self.axis, 0) if leaf.ndim > axis and leaf.shape[axis] == self.size), -1)

    @property
    def leaves(self) -> list[Any]:
        """All values of (args, kwargs, labels), without their containers, in the order of `sampled`."""
        return pytree.tree_leaves((self.args, self.kwargs, self.labels))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All input tensors of the model, positional ones first."""
        return tuple(leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor))

    @property
    def size(self) -> int:
        """Number of samples: the length of the axis that counts them in the first tensor that has it; 1 for a whole batch."""
        return 1 if self.whole else next(tensor.shape[self.axis] for tensor in self.tensors if tensor.ndim > self.axis)

    @property
    def known_labels(self) -> Tensor | None:
        """The labels, also those of positions that a model takes as an input, because it does not run without them, such as T5.

        One integer for each sample is an input: the class of a conditional model.
        """
        if self.labels is not None:
            return self.labels
        passed = (value for name in LABEL_KEYS if isinstance(value := self.kwargs.get(name), Tensor) and is_integer(value))
        return next((value for value in passed if value.ndim > (0 if self.whole else 1) and (self.whole or len(value) == self.size)), None)

    @property
    def answers(self) -> Tensor | None:
        """The known labels, one row per sample, even for a whole batch."""
        labels = self.known_labels
        return labels.unsqueeze(0) if self.whole and labels is not None else labels

    def rows(self, tensor: Tensor) -> Tensor:
        """One of the batch's tensors with its samples in the leading dimension."""
        if self.whole:
            return tensor.unsqueeze(0)
        axis = next((axis for leaf, axis in zip(self.leaves, self.axes, strict=True) if leaf is tensor), 0)
        return tensor.movedim(axis, 0) if axis else tensor

    @property
    def shapes(self) -> str:
        """Shape of one sample, for people: "[3, 32, 32]", or "input_ids [16], attention_mask [16]"."""
        given = [self._shape(leaf) for leaf in pytree.tree_leaves(self.args) if isinstance(leaf, Tensor)]
        named = [
            f"{name} {self._shape(leaf)}"
            for name, value in self.kwargs.items()
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, Tensor)
        ]
        counts: dict[str, int] = {}
        for shape in given + named:
            counts[shape] = counts.get(shape, 0) + 1
        return ", ".join(shape if count == 1 else f"{count} times {shape}" for shape, count in counts.items())

    def _shape(self, tensor: Tensor) -> str:
        return str(list(tensor.shape) if self.whole else list(self.rows(tensor).shape[1:]))

    def select(self, indices: Sequence[int] | Tensor) -> Batch:
        """The samples at `indices`, in that order.

        Raises:
            DataError: if the batch is one sample, and `indices` is not just that sample.
        """
        index = torch.as_tensor(indices, dtype=torch.int64)
        if self.whole:
            return self._one(index.tolist())
        return self._map(lambda tensor, axis: tensor.index_select(axis, index.to(tensor.device)))

    def narrow(self, start: int, length: int) -> Batch:
        """The `length` samples from `start` on, as views.

        Raises:
            DataError: like `select`.
        """
        if self.whole:
            return self._one(list(range(start, start + length)))
        return self._map(lambda tensor, axis: tensor.narrow(axis, start, length))

    def as_whole(self) -> Batch:
        """The batch as one sample."""
        return replace(self, sampled=(), axis=0, whole=True, output_axes={}, mask=None, listed=())

    def along(self, axis: int) -> Batch:
        """The batch with samples counted along `axis`."""
        return replace(self, sampled=(), axis=axis, output_axes={}, mask=None, listed=())

    def with_states(self) -> Batch:
        """The batch, cut along the second dimension of tensors that count the samples only there, like states of recurrent layers."""
        places = [
            isinstance(leaf, Tensor) and not sampled and leaf.layout == torch.strided and leaf.ndim > 1 and leaf.shape[1] == self.size
            for leaf, sampled in zip(self.leaves, self.sampled, strict=True)
        ]
        sampled = tuple(sampled or place for sampled, place in zip(self.sampled, places, strict=True))
        axes = tuple(1 if place else axis for axis, place in zip(self.axes, places, strict=True))
        return replace(self, sampled=sampled, axes=axes, output_axes={}, mask=None)

    def in_dtype(self, dtype: torch.dtype) -> Batch:
        """The batch with every floating-point tensor in `dtype`."""
        floats = (isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in self.leaves)
        return self._rebuilt([leaf.to(dtype) if wanted else leaf for leaf, wanted in zip(self.leaves, floats, strict=True)], self.mask)

    def _one(self, indices: list[int]) -> Batch:
        if indices != [0]:
            raise DataError("the batch is one sample, which cannot be cut or repeated")
        return self

    def _map(self, cut: Callable[[Tensor, int], Tensor]) -> Batch:
        parts = zip(self.leaves, self.sampled, self.axes, strict=True)
        leaves = [cut(leaf, axis) if sampled else leaf for leaf, sampled, axis in parts]
        return self._rebuilt(leaves, None if self.mask is None else cut(self.mask, 0))

    def _rebuilt(self, leaves: list[Any], mask: Tensor | None) -> Batch:
        structure = pytree.tree_structure((self.args, self.kwargs, self.labels))
        args, kwargs, labels = pytree.tree_unflatten(leaves, structure)
        return replace(self, args=args, kwargs=kwargs, labels=labels, mask=mask)


def regroup(batches: Iterable[Batch], batch_size: int) -> tuple[Batch, ...]:
    """The same samples in the same order, up to `batch_size` per batch; samples that cannot be joined start a new batch."""
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


def _joinable(left: Batch, right: Batch) -> bool:
    if left.whole or right.whole or left.axes != right.axes:
        return False
    alike = pytree.tree_structure((left.args, left.kwargs, left.labels)) == pytree.tree_structure((right.args, right.kwargs, right.labels))
    masks = [None if batch.mask is None else batch.mask.shape[1:] for batch in (left, right)]
    return (
        alike
        and masks[0] == masks[1]
        and left.sampled == right.sampled
        and all(map(_same_kind, left.leaves, right.leaves, left.sampled, left.axes))
    )


def _same_kind(left: Any, right: Any, sampled: bool, axis: int) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right) and bool(left == right)
    if left.dtype != right.dtype:
        return False
    if not sampled:
        return same_tensors(left, right)
    one, other = ((*tensor.shape[:axis], *tensor.shape[axis + 1 :]) for tensor in (left, right))
    return one == other


def _join(group: Sequence[Batch]) -> Batch:
    first = group[0]
    if len(group) == 1:
        return first
    columns = zip(*(batch.leaves for batch in group), strict=True)
    parts = zip(columns, first.sampled, first.axes, strict=True)
    joined = [torch.cat(column, axis) if sampled else column[0] for column, sampled, axis in parts]
    masks = [batch.mask for batch in group if batch.mask is not None]
    return first._rebuilt(joined, torch.cat(masks) if masks else None)


def is_integer(tensor: Tensor) -> bool:
    """Whether the values are integers and not booleans."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
