"""A model whose channels are scaled by powers of two on both sides of a tensor, so that it computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpq.errors import MismatchError
from mpq.models.running.swap import swapped, tensor_of
from mpq.records.equalization import Chain


def folded(module: nn.Module, chains: Sequence[Chain]) -> dict[str, Tensor]:
    """The tensors of `module` that change, by name in the state dict, in their own shapes and dtypes; the module is unchanged.

    Raises:
        MismatchError: if a tensor has another number of channels.
        ModelError: if the model has no such tensor.
    """
    found: dict[str, Tensor] = {}
    for chain in chains:
        powers = torch.exp2(torch.tensor(chain.exponents, dtype=torch.float64))
        for name in chain.multiplied:
            found[name] = _rows(name, _value(found, module, name), powers)
        for name in chain.divided:
            found[name] = _channels(name, _value(found, module, name), 1 / powers)
    return found


@contextmanager
def equalized(module: nn.Module, chains: Sequence[Chain]) -> Iterator[None]:
    """Scale the channels of `module` in place within the `with`; its own values are restored to the bit at the end.

    Raises:
        MismatchError: if the chains belong to another model.
    """
    with swapped(module, folded(module, chains)):
        yield


def _value(found: dict[str, Tensor], module: nn.Module, name: str) -> Tensor:
    return found[name] if name in found else tensor_of(module, name).detach()


def _rows(name: str, value: Tensor, powers: Tensor) -> Tensor:
    if not value.dim() or len(value) != len(powers):
        raise _other(name, value, powers)
    return value * powers.to(value).view(-1, *[1] * (value.dim() - 1))


def _channels(name: str, value: Tensor, powers: Tensor) -> Tensor:
    """Of a weight [outputs, inputs / groups, ...], whose groups have their outputs one after the other."""
    groups = len(powers) // value.shape[1] if value.dim() > 1 and value.shape[1] else 0
    if not groups or groups * value.shape[1] != len(powers) or len(value) % groups:
        raise _other(name, value, powers)
    parts = value.reshape(groups, -1, *value.shape[1:])
    return (parts * powers.to(value).view(groups, 1, value.shape[1], *[1] * (value.dim() - 2))).reshape(value.shape)


def _other(name: str, value: Tensor, powers: Tensor) -> MismatchError:
    shape = "x".join(map(str, value.shape))
    return MismatchError(f"'{name}' is {shape} and cannot have {len(powers)} equalized channels: the equalization belongs to another model")
