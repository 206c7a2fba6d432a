"""Scales as bfloat16, which torch's packed matmuls want, and the few bits that this cuts off, so that the fp16 scales come back.

A bfloat16 has 8 significant bits and an fp16 has 11: the two lie at most 4 steps of fp16 apart, which fit beside a 4-bit zero point.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MIDDLE = 8


def narrowed(scales: Tensor) -> tuple[Tensor, Tensor]:
    """fp16 scales as bfloat16, and how many steps of fp16 they lie above it: uint8 of 4 to 12, where 8 means none."""
    near = scales.bfloat16()
    return near, (scales.view(torch.int16) - near.half().view(torch.int16) + _MIDDLE).to(torch.uint8)


def widened(near: Tensor, steps: Tensor) -> Tensor:
    """The fp16 scales that `narrowed` took apart."""
    found: Tensor = (near.half().view(torch.int16) + (steps.to(torch.int16) - _MIDDLE)).view(torch.float16)
    return found
