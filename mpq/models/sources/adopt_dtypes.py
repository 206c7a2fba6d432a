"""Converts a module to the floating dtype of the checkpoint that it is filled from, in which it can run.

A checkpoint in one dtype gives it to the whole module. Of several, the module takes the one that holds them all exactly (float32 for
bfloat16 and float32), because operators refuse operands of different dtypes; only norms of torch, which accept them, keep float32 among
16-bit weights. A few float64 values among others, fp8 and integers are no dtypes to run in: torch converts them when it loads them, and the
notes say so. A module that already has the checkpoint's dtypes keeps them all, and tensors that the module itself keeps in such a dtype
or in complex numbers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.shown import listed

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes in which operators compute."""
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_LISTED = 3
Tensors = Mapping[str, Tensor]


def adopt_dtypes(state: Mapping[str, Any], module: nn.Module) -> list[str]:
    """Give the module the checkpoint's floating dtype, in place, and return notes on tensors that are converted; tied ones stay tied."""
    given = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    own = dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])
    if all(own[name].dtype == value.dtype for name, value in given.items() if name in own):
        return []  # the module was made in these dtypes, so it runs in them
    norms = {f"{path}.{name}".strip(".") for path, one in module.named_modules() if isinstance(one, _NORMS) for name in one.state_dict()}
    floats = {name: tensor for name, tensor in given.items() if tensor.dtype in COMPUTED and _is_computed(own.get(name, tensor))}
    wide = _common(floats, norms)
    if wide is None:
        return _notes(given, own)
    for name, tensor in own.items():
        dtype = floats[name].dtype if name in floats else wide
        exact = dtype == tensor.dtype == torch.float64 or (name in norms and dtype == torch.float32 and wide.itemsize == 2)
        if _is_computed(tensor) and not exact and tensor.dtype != wide:
            tensor.data = tensor.data.to(wide)
        elif _is_computed(tensor) and exact and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)
    return _notes(given, own)


def refuse_lost_scales(state: Mapping[str, Any], module: nn.Module, unexpected: tuple[str, ...], *, what: str) -> None:
    """Refuse codes of another tool's quantized weights, whose scales the module does not have.

    Raises:
        ModelError: if fp8 or integer values would fill a floating-point tensor, and names of scales are left out.
    """
    own = module.state_dict()
    coded = [name for name, value in state.items() if name in own and isinstance(value, Tensor) and _is_coded(value, own[name])]
    scales = [name for name in unexpected if "scale" in name.rpartition(".")[2]]
    if coded and scales:
        kind = str(state[coded[0]].dtype).removeprefix("torch.")
        raise ModelError(
            f"{what}: '{coded[0]}' is {kind} with a scale, '{scales[0]}', that the module does not have: "
            "multiply weights and scales, and save them in 16 or 32 bits"
        )


def _common(floats: Tensors, norms: set[str]) -> torch.dtype | None:
    """The dtype that holds all these tensors exactly, except a minority in float64; None if there are none."""
    counted = [tensor.dtype for name, tensor in floats.items() if name not in norms] or [tensor.dtype for tensor in floats.values()]
    few = 2 * counted.count(torch.float64) < len(counted)
    kinds = [dtype for dtype in dict.fromkeys(counted) if dtype != torch.float64 or not few]
    return reduce(torch.promote_types, kinds) if kinds else None


def _notes(given: Tensors, own: Tensors) -> list[str]:
    """One note for each pair of dtypes in the file and in the module."""
    changed: dict[tuple[str, str], list[str]] = {}
    for name, value in given.items():
        target = own.get(name)
        if target is not None and target.is_floating_point() and target.dtype != value.dtype:
            pair = (_named(value.dtype), _named(target.dtype))
            changed.setdefault(pair, []).append(name)
    return [
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} converted from {before} to {after}, in which the module runs: "
        f"{listed(names, _LISTED)}"
        for (before, after), names in changed.items()
    ]


def _is_computed(tensor: Tensor) -> bool:
    return tensor.dtype in COMPUTED


def _is_coded(value: Tensor, own: Any) -> bool:
    return isinstance(own, Tensor) and _is_computed(own) and own.ndim > 0 and not value.is_complex() and value.dtype not in COMPUTED


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
