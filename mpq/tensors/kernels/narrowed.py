"""Scales as bfloat16, which torch's packed matmuls need, and the few lost bits, so that the fp16 scales can be restored.

A bfloat16 has 8 significant bits and an fp16 has 11: they differ by at most 4 fp16 steps, which fit next to a 4-bit zero point.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MIDDLE = 8


def narrowed(scales: Tensor) -> tuple[Tensor, Tensor]:
    """fp16 scales as bfloat16, and their distance above it in fp16 steps: uint8 from 4 to 12, where 8 means none."""
    near = scales.bfloat16()
    return near, (scales.view(torch.int16) - near.half().view(torch.int16) + _MIDDLE).to(torch.uint8)


def widened(near: Tensor, steps: Tensor) -> Tensor:
    """The inverse of `narrowed`."""
    found: Tensor = (near.half().view(torch.int16) + (steps.to(torch.int16) - _MIDDLE)).view(torch.float16)
    return found
