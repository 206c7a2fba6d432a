"""Lazy modules, such as `nn.LazyLinear`, have no shapes until their first call; a file with their tensors gives them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.parameter import is_lazy


def materialize(module: nn.Module, shape_of: Callable[[str], tuple[int, ...] | None]) -> None:
    """Give memory, without values, to the tensors of `module` that have no shape yet, in place.

    Args:
        module: any module.
        shape_of: the shape of a tensor by its name; None leaves it as it is.
    """
    for prefix, part in module.named_modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            path = f"{prefix}.{name}" if prefix else name
            if tensor is not None and is_lazy(tensor) and (shape := shape_of(path)) is not None:
                tensor.materialize(shape)


def without_shape(module: nn.Module) -> str | None:
    """The name of a tensor that has no shape yet, if there is one."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return next((name for name, tensor in tensors if is_lazy(tensor)), None)
