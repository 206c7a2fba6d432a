"""Replacing a module's tensors, and building modules without memory for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import ModelError


def replace_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer with this name in the state dict by `tensor`; a parameter then has no gradients.

    Raises:
        ModelError: if `module` is TorchScript, whose tensors have a fixed type.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module holds plain tensors only: load the artifact with packed=False and without dtype")
    path, _, leaf = name.rpartition(".")
    owner = dict(module.named_modules(remove_duplicate=False))[path]
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        setattr(owner, leaf, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False))


def fill_hollow(module: nn.Module) -> None:
    """Give every parameter without memory zeros, in place; tied parameters stay tied."""
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if parameter.is_meta:
            filled = nn.Parameter(torch.zeros(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
            path, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(path), leaf, made.setdefault(id(parameter), filled))


@contextmanager
def hollow_parameters(*, most: int | None = None) -> Iterator[None]:
    """Within the `with`, parameters of new modules get shapes and dtypes, but no memory; buffers are created as usual.

    Args:
        most: total number of parameters allowed, including those that are replaced or tied later; None for any number.

    Raises:
        ModelError: if there are more.
    """
    register, made = nn.Module.register_parameter, 0

    def hollow(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if param is None else param.numel()
        if most is not None and made > most:
            raise ModelError(f"its configuration makes more than {most:,} parameters, which the file does not have")
        if param is not None and not param.is_meta:  # a tied one stays the same object
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        register(self, name, param)

    patched: Any = nn.Module
    patched.register_parameter = hollow
    try:
        yield
    finally:
        patched.register_parameter = register
