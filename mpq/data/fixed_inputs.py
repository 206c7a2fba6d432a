"""Inputs given by a short description: the same values on every machine and with every version of torch.

Numbers come from a low-discrepancy sequence (multiples of the golden ratio), in a range with variance 1; integers come from the same
sequence, below a limit. An input whose values are all equal, such as a mask of ones, keeps its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = 0.6180339887498949
_WIDEST = 3.0**0.5  # half-width of a uniform distribution with variance 1
_STEP = 0.3819660112501051  # offset between the starts of several inputs


@dataclass(frozen=True)
class FixedInput:
    """One input.

    Args:
        shape: of the tensor.
        dtype: its name in torch.
        below: upper limit (exclusive) of integers; None for floating-point numbers and for a constant value.
        value: the constant value of all elements; None for values of the sequence.
    """

    shape: tuple[int, ...]
    dtype: str
    below: int | None = None
    value: float | None = None

    def tensor(self, number: int = 0) -> Tensor:
        """The values; `number` counts the inputs of a call, so that they differ."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.value is not None:
            return torch.full(self.shape, self.value, dtype=dtype)
        places = torch.arange(torch.Size(self.shape).numel(), dtype=torch.float64)
        share = (number * _STEP + (places + 1) * _GOLDEN) % 1.0
        values = (share * self.below).floor() if self.below is not None else (2 * share - 1) * _WIDEST
        return values.to(dtype).reshape(self.shape)


def fixed_like(tensor: Tensor, *, below: int | None = None) -> FixedInput:
    """The description of an input with the shape and dtype of `tensor`; integers are below `below`, or by default in its own range."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point():
        return FixedInput(shape, dtype)
    if below is None and tensor.numel() and bool((tensor == tensor.reshape(-1)[0]).all()):
        return FixedInput(shape, dtype, value=float(tensor.reshape(-1)[0]))
    return FixedInput(shape, dtype, below=below or int(tensor.max()) + 1)
