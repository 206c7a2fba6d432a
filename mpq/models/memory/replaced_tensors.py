"""Replacing a module's tensors, and building modules without memory for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mpq.errors import ModelError

_SHAPED = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
_ANY_SIZE = 1 << 26  # elements that a single tensor of a new module may always have


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
def hollow_parameters(*, most: int | None = None, keep: bool = False) -> Iterator[None]:
    """Within the `with`, parameters of new modules get shapes and dtypes, but no memory; buffers are created as usual.

    Args:
        most: total number of parameters allowed, including those that are replaced later; None for any number.
        keep: leave parameters as they are, and count only those without memory.

    Raises:
        ModelError: if there are more, or a single tensor is larger, before it takes memory.
    """
    register, made = nn.Module.register_parameter, 0
    seen: dict[int, nn.Parameter] = {}  # kept alive, or an id could be given again

    def hollow(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if param is None or id(param) in seen or (keep and not param.is_meta) else param.numel()
        if most is not None and made > most:
            raise ModelError(f"its configuration makes more than {most:,} parameters, which the file does not have")
        if param is not None and not param.is_meta and not keep:  # a tied one stays the same object
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        if param is not None and param.is_meta:
            seen[id(param)] = param
        register(self, name, param)

    patched: Any = nn.Module
    patched.register_parameter = hollow
    try:
        with nullcontext() if most is None else _Bounded(most):
            yield
    finally:
        patched.register_parameter = register


class _Bounded(TorchFunctionMode):
    """Refuses to create a tensor with more elements than a file can have values for."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = kwargs or {}
        if _elements(func, args, given) > max(self._most, _ANY_SIZE):
            raise ModelError(f"its configuration makes more than {self._most:,} parameters, which the file does not have")
        return func(*args, **given)


def _elements(func: Any, args: Sequence[Any], given: Mapping[str, Any]) -> float:
    """The number of elements that a function creates; 0 if it creates none, or its arguments are not numbers."""
    if func is torch.arange:
        numbers = [each for each in args if isinstance(each, int | float)]
        start, end, step = (0, *numbers, 1) if len(numbers) == 1 else (*numbers, 1)[:3] if len(numbers) > 1 else (0, 0, 1)
        return (end - start) / step if step else 0
    if func not in _SHAPED:
        return 0
    size = given.get("size", args[0] if args and isinstance(args[0], Sequence) else args)
    return math.prod(each for each in size if isinstance(each, int))
