"""Unquantized tensors stored in a smaller floating-point dtype: only those that become smaller, and only where the range holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.tensors.quantized import FLOAT_DTYPES


def narrow_dtype(dtype: torch.dtype, wanted: str | None) -> torch.dtype:
    """What a tensor of `dtype` is stored in: `wanted` if it is a real floating-point dtype of more bytes, else its own.

    Args:
        dtype: of the tensor.
        wanted: "bf16", "fp16" or "fp32"; None keeps every dtype.
    """
    smaller = FLOAT_DTYPES[wanted] if wanted is not None else dtype
    return smaller if dtype.is_floating_point and dtype.itemsize > smaller.itemsize else dtype


def overflow(tensor: Tensor, wanted: str) -> float | None:
    """The finite value of a tensor that `wanted` has no finite number for; None where it holds all of them."""
    target = narrow_dtype(tensor.dtype, wanted)
    if target == tensor.dtype or not tensor.numel():
        return None
    ends = torch.stack(torch.aminmax(tensor))
    if not bool(torch.isfinite(ends).all()):  # infinity and NaN stay what they are
        finite = tensor[torch.isfinite(tensor)]
        ends = torch.stack(torch.aminmax(finite)) if finite.numel() else finite
    lost = ends[~torch.isfinite(ends.to(target))]
    return float(lost[0]) if len(lost) else None


def narrowed(tensor: Tensor, wanted: str | None, name: str) -> Tensor:
    """A tensor as it is stored.

    Args:
        tensor: of any dtype.
        wanted: "bf16", "fp16" or "fp32"; None keeps every dtype.
        name: of the tensor, for the refusal.

    Raises:
        NumericsError: if a finite value has no finite number in `wanted`.
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
