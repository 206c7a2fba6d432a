"""Unquantized tensors stored in a smaller floating-point dtype: only those that become smaller, and only if the range suffices."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.tensors.quantized import FLOAT_DTYPES


def narrow_dtype(dtype: torch.dtype, wanted: str | None) -> torch.dtype:
    """The stored dtype of a tensor: `wanted` if `dtype` is a real floating-point dtype with more bytes, else `dtype`.

    Args:
        dtype: dtype of the tensor.
        wanted: "bf16", "fp16" or "fp32"; None keeps every dtype.
    """
    smaller = FLOAT_DTYPES[wanted] if wanted is not None else dtype
    return smaller if dtype.is_floating_point and dtype.itemsize > smaller.itemsize else dtype


def overflow(tensor: Tensor, wanted: str) -> float | None:
    """A finite value of a tensor that `wanted` cannot represent; None if it can represent all values."""
    target = narrow_dtype(tensor.dtype, wanted)
    if target == tensor.dtype or not tensor.numel():
        return None
    ends = torch.stack(torch.aminmax(tensor))
    if not bool(torch.isfinite(ends).all()):  # infinity and NaN stay unchanged
        finite = tensor[torch.isfinite(tensor)]
        ends = torch.stack(torch.aminmax(finite)) if finite.numel() else finite
    lost = ends[~torch.isfinite(ends.to(target))]
    return float(lost[0]) if len(lost) else None


def narrowed(tensor: Tensor, wanted: str | None, name: str) -> Tensor:
    """A tensor in its stored form.

    Args:
        tensor: a tensor of any dtype.
        wanted: "bf16", "fp16" or "fp32"; None keeps every dtype.
        name: name of the tensor, for the message.

    Raises:
        NumericsError: if `wanted` cannot represent a finite value.
    """
    if wanted is None:
        return tensor
    lost = overflow(tensor, wanted)
    if lost is not None:
        raise NumericsError(refusal(name, lost, wanted))
    return tensor.to(narrow_dtype(tensor.dtype, wanted))


def refusal(name: str, value: float, wanted: str) -> str:
    """Why an unquantized tensor cannot be stored in `wanted`, and what to do."""
    most = torch.finfo(FLOAT_DTYPES[wanted]).max
    instead = "--rest bf16, which reaches as far as fp32" if wanted == "fp16" else "no --rest"
    return f"'{name}' holds {value:.4g}, and {wanted} ends at {most:.4g}: use {instead}"
