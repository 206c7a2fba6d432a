"""Scales in 8 bits: a whole number from -127 to 127 per group, times a power of two per row.

    scale of a group = number * 2**exponent of its row      stored uint8 [rows, 1 + groups]: the exponent plus 127, then the numbers

So a group costs 8 bits instead of 16. In the k-quants of llama.cpp the number has 4 to 8 bits, times an fp16 number per 256 weights. Every
product is an fp16 number, exactly: all that computes with fp16 scales computes with these. The exponent is the smallest that the
largest scale of its row allows, so a scale is off by at most 1/127 of that one, and codes are chosen under the scale as it is stored. With
numbers of e4m3, as in NVFP4, scales are off by up to a sixteenth everywhere, and lose more (`benchmarks/log.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 127
_LEAST, _MOST = -24, 9  # exponents with which every product is an fp16 number
_BIAS = 127


def row_exponents(scales: Tensor) -> Tensor:
    """The exponents for scales [rows, groups]; float32 whole numbers [rows, 1]."""
    mantissa, exponent = torch.frexp(scales.float().abs().amax(1, keepdim=True) / _LARGEST)
    return torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(_LEAST, _MOST).float()


def nearest_small(scales: Tensor, exponents: Tensor) -> Tensor:
    """The nearest scales under given exponents that are not zero, the sign is kept; fp16."""
    unit = torch.ldexp(torch.ones_like(exponents), exponents.int())
    magnitude = (scales.float().abs() / unit).round_().clamp_(1, _LARGEST)
    return (torch.where(scales < 0, -magnitude, magnitude) * unit).half()


def to_bytes(scales: Tensor) -> Tensor:
    """What is stored of fp16 scales [rows, groups] that `nearest_small` gave: uint8 [rows, 1 + groups]."""
    exponents = row_exponents(scales)
    numbers = torch.ldexp(scales.float(), -exponents.int()).to(torch.int8)
    return torch.cat([(exponents + _BIAS).byte(), numbers.view(torch.uint8)], 1)


def from_bytes(stored: Tensor) -> Tensor:
    """The fp16 scales [rows, groups] that `to_bytes` encoded."""
    numbers = stored[:, 1:].contiguous().view(torch.int8).float()
    return torch.ldexp(numbers, stored[:, :1].int() - _BIAS).half()
