"""The input and the result of readers of exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import QuantizedWeight


class Place(NamedTuple):
    """Where a layer should be: its name in the file, its scheme, and its rows and columns."""

    name: str
    scheme: Scheme
    matrix: tuple[int, int]


@dataclass(frozen=True)
class Held:
    """The contents of an export.

    Args:
        weights: weights of layers by their place in the file, with the file's scheme.
        tensors: the other floating-point tensors by name.
        uses: the operators that use a layer's weight, sorted, by its place; empty if the file does not say.
    """

    weights: Mapping[str, QuantizedWeight]
    tensors: Mapping[str, Tensor]
    uses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def integer_scheme(bits: int, *, groups: int, columns: int, group_size: int, symmetric: bool) -> Scheme:
    """The scheme of codes with `groups` scales in each row."""
    return Scheme(f"int{bits}", None if groups == 1 and group_size >= columns else group_size, symmetric)


def as_values(tensors: Mapping[str, Tensor], place: Place, *names: str) -> tuple[str, QuantizedWeight] | None:
    """The first of `names` with a floating-point tensor of the layer's size, and its weight; None if there is none."""
    rows, columns = place.matrix
    for name in names:
        tensor = tensors.get(name)
        if tensor is not None and tensor.is_floating_point() and tensor.numel() == rows * columns:
            return name, values(tensor, place.matrix)
    return None


def values(tensor: Tensor, matrix: tuple[int, int] | None = None) -> QuantizedWeight:
    """A weight that is stored as values."""
    shaped = tensor.reshape(matrix or (len(tensor), -1)).float()
    return QuantizedWeight(Scheme("fp32"), (shaped.shape[0], shaped.shape[1]), shaped)
