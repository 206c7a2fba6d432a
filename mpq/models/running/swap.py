"""What changes a model within a `with`: values in its own tensors, the forward pass of some of its modules, and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.models.memory.offload import is_mapped, used


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of `module` with this name in its state dict; not a copy.

    Raises:
        ModelError: if there is none; the message names the closest one.
    """
    path, _, leaf = name.rpartition(".")
    owner: nn.Module | None = module
    for child in path.split(".") if path else ():  # TorchScript has no get_submodule
        owner = owner._modules[child] if owner is not None and child in owner._modules else None
    if owner is not None:
        own: dict[str, Tensor] = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
        own.update(owner.named_buffers(recurse=False, remove_duplicate=False))
        if leaf in own:
            used(own[leaf])
            return own[leaf]
    close = get_close_matches(name, list(module.state_dict()), n=1, cutoff=0.0)
    raise ModelError(f"the model has no tensor '{name}'" + (f": the closest is '{close[0]}'" if close else ""))


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Write `weights` into `module` in place, and restore the old values bit for bit at the end, even after an error.

    Tied tensors share their storage, so a swap under one name affects all names. A weight that is mapped from a file cannot be written to:
    it is one parameter under all its names, and uses the memory of the new value instead.

    Args:
        module: changed within the `with`.
        weights: new values by name in the state dict, of the same shape and dtype as the old ones; each is asked for once, one after the
            other, so a mapping may make them meanwhile.

    Raises:
        ModelError: if a name is unknown, or a shape or dtype differs; nothing is changed then.
    """
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for name, value in weights.items():
            tensor = _checked(module, name, value)
            if is_mapped(tensor):
                saved.append((tensor, tensor.data))
                tensor.data = value
            else:
                saved.append((tensor, tensor.detach().clone()))
                _write(tensor, value)
        yield
    finally:
        for tensor, old in reversed(saved):
            if is_mapped(old):
                tensor.data = old
            else:
                _write(tensor, old)


@contextmanager
def forwards_replaced(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Within the `with`, each of these modules runs another forward pass; its hooks run as before."""
    own = [module.__dict__.get("forward") for module, _ in forwards]  # some libraries wrap a module's forward in place
    try:
        for module, forward in forwards:
            module.__dict__["forward"] = forward
        yield
    finally:
        for (module, _), forward_of_its_own in zip(forwards, own, strict=True):
            module.__dict__.pop("forward", None)
            if forward_of_its_own is not None:
                module.__dict__["forward"] = forward_of_its_own


@contextmanager
def hooked(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Within the `with`, these hooks are registered; they are removed at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _checked(module: nn.Module, name: str, value: Tensor) -> Tensor:
    tensor = tensor_of(module, name)
    if tensor.shape != value.shape:
        raise ModelError(f"'{name}' has shape {list(tensor.shape)} in the model and {list(value.shape)} in the new weights")
    if tensor.dtype != value.dtype:
        raise ModelError(f"'{name}' is {_dtype(tensor)} in the model and {_dtype(value)} in the new weights: convert them first")
    return tensor


def _write(tensor: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        tensor.data.copy_(value)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
