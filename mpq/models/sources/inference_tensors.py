"""Tensors made under torch.inference_mode cannot be modified or trained outside it, so they are replaced by ordinary ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor itself, or an ordinary copy of an inference tensor."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()


def replace_inference_tensors(module: nn.Module) -> None:
    """Replace inference tensors of `module` by ordinary ones with the same values, in place; tied tensors stay tied."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None or is_lazy(tensor) or not tensor.is_inference():
                continue
            if id(tensor) not in made:
                copy = ordinary(tensor.data if isinstance(tensor, nn.Parameter) else tensor)
                made[id(tensor)] = nn.Parameter(copy, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
            setattr(part, name, made[id(tensor)])
