"""Where an output has the positions of its inputs: the model is run on shorter inputs, and the dimension that shrinks counts positions.

Padding can be left out of an output only where its positions are known, and a dimension that counts positions has no classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch, is_integer
from mpq.errors import DataError, ModelError
from mpq.models.running.forward import forward, named
from mpq.models.running.positions import expanded


def mask_place(module: nn.Module, batch: Batch, name: str, output: Tensor) -> tuple[str | None, str]:
    """What the batch's mask applies to in an output ("positions", "scaled", "last" or None, as in `Part`), and a note if that is unusual.

    Args:
        module: run on shorter inputs if the output's shape does not decide.
        batch: with a mask.
        name: the output's name.
        output: its values for the batch.
    """
    assert batch.mask is not None
    length = batch.mask.shape[1]
    if batch.mask.ndim > 2:
        return _place_in_image(batch.mask, name, output)
    if output.ndim < 2 or (output.ndim > 2 and output.shape[1] == length):
        return "positions", ""
    shorter = _shape_when_shorter(module, batch, name, length)
    if output.ndim == 2:
        same = output.shape == batch.mask.shape
        if shorter is None or shorter[1] == output.shape[1]:
            return (None if same else "positions"), ""  # values of an embedding; of another number, the mask hides nothing
        return ("positions", "") if same else ("scaled", _proportion(name, output.shape[1], length))
    if shorter is not None and shorter[1] != output.shape[1]:
        return "scaled", _proportion(name, output.shape[1], length)
    if (shorter is None and output.shape[-1] == length) or (shorter is not None and shorter[-1] != output.shape[-1]):
        return "last", "" if output.shape[-1] == length else _proportion(name, output.shape[-1], length)
    return "positions", _nowhere(name, output)


def counts_positions(module: nn.Module, batch: Batch, name: str, output: Tensor) -> bool:
    """Whether the last dimension of an output becomes shorter with the last dimension of the inputs: it then has no classes."""
    inputs = [tensor for tensor in batch.tensors if tensor.ndim > 1 and tensor.layout == torch.strided]
    ids = [tensor for tensor in inputs if is_integer(tensor) and tensor.ndim == 2]
    if not inputs or batch.whole or (ids and output.ndim > 2):  # a language model has classes for each token
        return False
    first = next((tensor for tensor in inputs if tensor.is_floating_point()), inputs[0])
    shorter = _shape_when_shorter(module, batch, name, first.shape[-1], dims=((-1,),))
    return shorter is not None and shorter[:-1] == output.shape[:-1] and shorter[-1] < output.shape[-1]


def _place_in_image(mask: Tensor, name: str, output: Tensor) -> tuple[str, str]:
    """Like `mask_place`, for a mask of the pixels of images [samples, height, width]."""
    if output.ndim < 3 or expanded(mask, output) is not None:
        return "positions", ""
    if mask.ndim == 3 and output.ndim == 4:
        return "scaled", _proportion(name, list(output.shape[2:]), list(mask.shape[1:]))
    return "positions", _nowhere(name, output)


def _nowhere(name: str, output: Tensor) -> str:
    return f"no dimension of output '{name}' {list(output.shape[1:])} counts the positions of the mask, so padding is not left out of it"


def _proportion(name: str, own: int | list[int], length: int | list[int]) -> str:
    return f"output '{name}' has {own} positions for the {length} of the mask, which applies in proportion"


def _shape_when_shorter(
    module: nn.Module, batch: Batch, name: str, length: int, *, dims: tuple[tuple[int, ...], ...] = ((1, -1), (1,), (-1,))
) -> torch.Size | None:
    """The shape of an output where inputs with `length` entries along one of `dims` have fewer; None if the model does not accept that."""
    module = getattr(module, "_orig_mod", module)  # torch.compile would compile every shape, and print tracebacks of those that fail
    for fewer in dict.fromkeys((length // 2, length - 1)):
        for chosen in dims if fewer > 0 else ():
            shortened = _shortened(batch, length, fewer, chosen)
            if shortened.shapes == batch.shapes:
                continue
            try:
                found = named(forward(module, shortened))
            except (DataError, ModelError):
                continue
            if name in found:
                return found[name].shape
    return None


def _shortened(batch: Batch, length: int, fewer: int, dims: tuple[int, ...]) -> Batch:
    """The batch with the first `fewer` of `length` entries along `dims`; lengths that it holds are at most as large."""

    def cut(value: object) -> object:
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            return value
        if value.ndim == 1 and is_integer(value) and len(value) == batch.size and int(value.max()) <= length:
            return value.clamp(max=fewer)
        for dim in _cut_dims(value, length, dims, batch.axis):
            value = value.narrow(dim, 0, fewer)
        return value

    args, kwargs = pytree.tree_map(cut, (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs, labels=None, mask=None, sampled=(), axes=())


def _cut_dims(value: Tensor, length: int, dims: tuple[int, ...], axis: int) -> Iterator[int]:
    """The dimensions to cut: those of `dims`, counted without the one of the samples."""
    others = [dim for dim in range(value.ndim) if dim != axis]
    wanted = {others[dim - 1 if dim > 0 else dim] for dim in dims if others}
    yield from (dim for dim in sorted(wanted) if value.shape[dim] == length)
