"""Where the elements of a weight are in memory, even after it was copied.

A region is a strided view in absolute byte addresses, so slices, transposes and several parameters in one storage need no special cases. An
origin connects a region to a weight: it is a parameter's own memory, or a copy, which knows its source region and the origin of that. To
find the dimensions of the parameter that an op sums over, walk along the summed dimension of the op's tensor, translate every address back,
and see which indices change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """A strided block of memory.

    Args:
        address: address of the first element, in bytes.
        shape: elements per dimension.
        strides: distance between neighbors per dimension, in bytes.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def last(self) -> int:
        """Address of the last element."""
        return self.address + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def addresses(self, indices: Integers) -> Integers:
        """Addresses [n] of the elements at `indices` [n, dims]."""
        return self.address + indices @ np.array(self.strides, dtype=np.int64)

    def indices(self, addresses: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Indices [n, dims] of the elements at `addresses` [n], and which [n] of these addresses are elements."""
        rest = addresses - self.address
        inside = rest >= 0
        indices = np.zeros((len(addresses), len(self.shape)), dtype=np.int64)
        for dim in sorted(range(len(self.shape)), key=lambda dim: -self.strides[dim]):
            if self.shape[dim] > 1 and self.strides[dim] > 0:
                indices[:, dim], rest = np.divmod(rest, self.strides[dim])
                inside &= indices[:, dim] < self.shape[dim]
        return indices, inside & (rest == 0)

    def split(self, parts: int) -> Region:
        """The same memory with its first dimension split in two: equal parts, and the elements of each."""
        size = self.shape[0] // parts
        return Region(self.address, (parts, size, *self.shape[1:]), (self.strides[0] * size, *self.strides))

    def holds(self, address: int) -> bool:
        """Whether an element starts at `address`."""
        return self.address <= address <= self.last and bool(self.indices(np.array([address]))[1][0])

    def meeting(self, other: Region) -> int | None:
        """The address of an element that both regions share, searched at their ends; None if there is none."""
        if self.last < other.address or other.last < self.address:
            return None
        ends = ((other, self.address), (self, other.address), (other, self.last), (self, other.last))
        return next((address for region, address in ends if region.holds(address)), None)

    def line(self, address: int, dim: int) -> Integers:
        """Addresses of the elements that differ from the one at `address` only in `dim`, including itself."""
        (start,), _ = self.indices(np.array([address]))
        indices = np.repeat(start[None], self.shape[dim], axis=0)
        indices[:, dim] = np.arange(self.shape[dim])
        return self.addresses(indices)


def region(tensor: Tensor) -> Region:
    """The memory of `tensor`."""
    size = tensor.element_size()
    return Region(tensor.data_ptr(), tuple(tensor.shape), tuple(stride * size for stride in tensor.stride()))


@dataclass(frozen=True)
class Origin:
    """Memory with elements of a weight.

    Args:
        weight: number of the weight.
        region: the memory.
        source: for a copy, the source of the elements of `region`, index by index; same shape as `region`.
        parent: for a copy, the origin of `source`.
    """

    weight: int
    region: Region
    source: Region | None = None
    parent: Origin | None = None

    def trace(self, addresses: Integers) -> Integers:
        """Indices [n, dims] in the parameter of the elements at `addresses`; addresses that are not elements of it are left out."""
        indices, inside = self.region.indices(addresses)
        if self.source is None or self.parent is None:
            return indices[inside]
        return self.parent.trace(self.source.addresses(indices[inside]))

    @property
    def root(self) -> Region:
        """The memory of the parameter itself."""
        return self.region if self.parent is None else self.parent.root


def output_axes(origin: Origin, view: Region, reduced: Iterable[int]) -> tuple[int, ...]:
    """The axes of the parameter that remain when an op sums over the dimensions `reduced` of `view`.

    A dimension of size one never changes; it counts as summed over if its counterpart in `view` is.
    """
    shape, summed = origin.root.shape, {dim % len(view.shape) for dim in reduced}
    meeting = view.meeting(origin.region)
    if meeting is None:
        return leading_axes(shape)
    gone: set[int] = set()
    for dim in summed:
        gone |= changing_axes(origin, view, dim, meeting)
    gone |= _units(shape, view.shape, summed)
    axes = tuple(axis for axis in range(len(shape)) if axis not in gone)
    return axes if axes and gone else leading_axes(shape)


def changing_axes(origin: Origin, view: Region, dim: int, meeting: int) -> set[int]:
    """The axes of the parameter that change when moving along `dim` of `view` from the address `meeting`."""
    indices = origin.trace(view.line(meeting, dim))
    return {int(axis) for axis in np.flatnonzero(indices.min(axis=0) != indices.max(axis=0))} if len(indices) else set()


def leading_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(len(shape) - 1))


def _units(shape: tuple[int, ...], view: tuple[int, ...], summed: set[int]) -> set[int]:
    """The axes of size one of `shape` whose counterparts in `view`, in order, are in `summed`."""
    ours, theirs = [[dim for dim, size in enumerate(sizes) if size == 1] for sizes in (shape, view)]
    if len(ours) != len(theirs):
        return set()
    return {axis for axis, dim in zip(ours, theirs, strict=True) if dim in summed}
