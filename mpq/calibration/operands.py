"""What multiplies a weight in one ATen op: the other operand, as the vectors whose products with the weight's rows are the outputs.

A matrix product gives its other operand, a convolution the patches that its kernel meets ("unfolded" inputs), a transposed
convolution the patches of its input with the zeros between them, a grouped product one set of vectors per expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mpq.models.layers.operator_roles import Role

_PARTNERS = {
    "self": ("mat2", "vec"),
    "mat2": ("self",),
    "mat1": ("mat2",),
    "mat": ("vec",),
    "batch1": ("batch2",),
    "batch2": ("batch1",),
    "input": ("weight",),
    "weight": ("input",),
    "X": ("W",),
    "W": ("X",),
}
_BOTH_LAST = ("linear", "_linear_pointwise")  # both operands are summed over along their last dim
_PATCHES = 1 << 24  # values of unfolded inputs in memory at a time


class Product(NamedTuple):
    """One product with a weight.

    Args:
        free: dims of the weight's view that count its outputs; the leading one of two counts the groups of a batched product.
        reduced: dims of the view that one output sums over; the vectors have their values in this order.
        groups: equal parts of the outputs, in order, each with separate vectors.
        vectors: gives (group, vectors [groups, positions, values]) piece by piece; for a group alone, its number and [1, ...].
        split: whether the dims are those of the view with its first one split into the groups.
    """

    free: tuple[int, ...]
    reduced: tuple[int, ...]
    groups: int
    vectors: Callable[[], Iterator[tuple[int | None, Tensor]]]
    split: bool = False


def product(operation: str, argument: str, part: Role, weight: Tensor, arguments: Mapping[str, Any]) -> Product | None:
    """What the op computes with `weight`, given as `argument`, in the role `part`; None if its vectors are not known."""
    if part.operator == "conv":
        return _convolution(operation, weight, arguments)
    vectors = _partner(operation, argument, arguments) if part.operator == "matmul" and part.reduced is not None else None
    if vectors is None or part.reduced is None:
        return None
    reduced = part.reduced[0]
    if arguments.get("offs") is not None:
        return _ragged(vectors, weight, reduced, arguments["offs"])
    if reduced == -1 and vectors.dim() > 1 and operation not in _BOTH_LAST:
        vectors = vectors.mT  # the weight is on the left
    return _matrix_product(operation, vectors, weight, reduced % weight.dim())


def _partner(operation: str, argument: str, arguments: Mapping[str, Any]) -> Tensor | None:
    bias_is_self = "mat1" in arguments  # in addmm
    names = ("mat1",) if bias_is_self and argument == "mat2" else _PARTNERS[argument]
    found = next((arguments[name] for name in names if name in arguments), None)
    return found if isinstance(found, Tensor) and found.is_floating_point() else None


def _matrix_product(operation: str, vectors: Tensor, weight: Tensor, reduced: int) -> Product:
    others = tuple(dim for dim in range(weight.dim()) if dim != reduced)
    if weight.dim() == 3 and (weight.stride(0) == 0 or weight.shape[0] == 1):
        others = others[1:]  # one matrix for the whole batch
    if len(others) == 2:
        return Product(others, (reduced,), weight.shape[0], lambda: iter([(None, vectors)]))
    width = weight.shape[reduced]
    return Product(others, (reduced,), 1, lambda: iter([(None, vectors.reshape(1, -1, width))]))


def _ragged(vectors: Tensor, weight: Tensor, reduced: int, ends: Tensor) -> Product | None:
    """A grouped product: rows `ends[e - 1]` to `ends[e]` of `vectors` meet expert e of a weight of three dims."""
    if weight.dim() != 3 or vectors.dim() != 2 or reduced != -2:
        return None
    stops = [int(end) for end in ends.tolist()]

    def pieces() -> Iterator[tuple[int | None, Tensor]]:
        for expert, (start, end) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            yield expert, vectors[None, start:end]

    return Product((0, 2), (1,), weight.shape[0], pieces)


def _convolution(operation: str, weight: Tensor, arguments: Mapping[str, Any]) -> Product | None:
    found = arguments.get("input", arguments.get("self"))
    groups = int(arguments.get("groups", 1))
    transposed = bool(arguments.get("transposed")) or "transpose" in operation
    if not isinstance(found, Tensor) or found.dim() != weight.dim():
        return None
    inputs, kernel, dims = found, tuple(weight.shape[2:]), weight.dim() - 2
    stride, padding, dilation = (each(arguments.get(name, default), dims) for name, default in DEFAULTS)
    if transposed:
        extra = each(arguments.get("output_padding", 0), dims)

        def spread(samples: Tensor) -> Tensor:
            spaced = _with_zeros(samples, kernel, stride, padding, dilation, extra)
            return _patches(spaced, kernel, (1,) * dims, dilation, groups, flip=True)

        return Product((0, 2), (1, *range(3, dims + 3)), groups, lambda: _in_pieces(inputs, kernel, spread), split=True)

    def cut(samples: Tensor) -> Tensor:
        margins = [margin for size in reversed(padding) for margin in (size, size)]
        return _patches(pad(samples, margins), kernel, stride, dilation, groups, flip=False)

    return Product((0,), tuple(range(1, dims + 2)), groups, lambda: _in_pieces(inputs, kernel, cut))


DEFAULTS = (("stride", 1), ("padding", 0), ("dilation", 1))


def _in_pieces(inputs: Tensor, kernel: Sequence[int], cut: Callable[[Tensor], Tensor]) -> Iterator[tuple[int | None, Tensor]]:
    """`cut` of a few samples at a time, so that the patches never take much memory."""
    size = max(1, inputs[:1].numel()) * max(1, torch.Size(kernel).numel())
    step = max(1, _PATCHES // size)
    for start in range(0, len(inputs), step):
        yield None, cut(inputs[start : start + step].float())


def _patches(inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int, *, flip: bool) -> Tensor:
    """What each output position of a convolution sums over: [groups, positions, channels of a group * kernel]."""
    dims = len(kernel)
    windows = inputs
    for dim in range(dims):
        windows = windows.unfold(2 + dim, dilation[dim] * (kernel[dim] - 1) + 1, stride[dim])
    windows = windows[_each_nth(dilation)]
    if flip:
        windows = windows.flip(tuple(range(-dims, 0)))
    samples, channels = inputs.shape[:2]
    places = windows.shape[2 : 2 + dims]
    windows = windows.reshape(samples, groups, channels // groups, *places, *kernel)
    order = (1, 0, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
    return windows.permute(order).reshape(groups, -1, channels // groups * torch.Size(kernel).numel())


def _with_zeros(
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    extra: Sequence[int],
) -> Tensor:
    """The input of the plain convolution with a mirrored kernel that a transposed convolution is."""
    sizes = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], stride, strict=True)]
    spaced = inputs.new_zeros((*inputs.shape[:2], *sizes))
    spaced[_each_nth(stride)] = inputs
    margins: list[int] = []
    for dim in reversed(range(len(kernel))):
        edge = dilation[dim] * (kernel[dim] - 1) - padding[dim]
        margins += [edge, edge + extra[dim]]
    return pad(spaced, margins)


def _each_nth(steps: Sequence[int]) -> tuple[Any, ...]:
    """The index of every n-th element along the last dims."""
    return (..., *(slice(None, None, step) for step in steps))


def each(value: Any, dims: int) -> tuple[int, ...]:
    """One number per spatial dim."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(int(one) for one in (values * dims if len(values) == 1 else values))
