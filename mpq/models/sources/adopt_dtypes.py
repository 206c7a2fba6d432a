"""Converts a module to the floating dtypes of the checkpoint that it is filled from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def adopt_dtypes(state: Mapping[str, Any], module: nn.Module) -> None:
    """Give the module the checkpoint's floating dtypes, in place; tied parameters stay tied.

    A tensor with a name that torch converts, such as `weight_g`, passes its dtype to the tensors of the innermost matching module.
    """
    given = {name: tensor.dtype for name, tensor in state.items() if isinstance(tensor, Tensor) and tensor.is_floating_point()}
    if len(set(given.values())) == 1:
        module.to(next(iter(given.values())))  # computed buffers too, as when a model is cast
        return
    own = dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])
    converted = {name: dtype for name, dtype in given.items() if name not in own}
    for name, tensor in own.items():
        dtype = given.get(name) or (None if name in state else _nearest(name, converted))
        if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)


def _nearest(name: str, dtypes: Mapping[str, torch.dtype]) -> torch.dtype | None:
    """The dtype below the innermost module on the way to `name` that holds any of `dtypes`; None if there is none, or several."""
    path = name
    while "." in path:
        path = path.rpartition(".")[0]
        found = {dtype for other, dtype in dtypes.items() if other.startswith(f"{path}.")}
        if found:
            return next(iter(found)) if len(found) == 1 else None
    return None
