"""Scales in 8 bits: an integer from -127 to 127 per group, times a power of two per row.

    scale of a group = number * 2**exponent of its row      stored uint8 [rows, 1 + groups]: the exponent plus 127, then the numbers

So the scale of a group takes 8 bits instead of 16. In the k-quants of llama.cpp the number has 4 to 8 bits, times an fp16 number per 256
weights. Every product is exactly an fp16 number, so everything that computes with fp16 scales works with these. The exponent is the
smallest that the largest scale of its row allows, so the error of a scale is at most 1/127 of that one, and codes are chosen under the
stored scale. With e4m3 numbers, as in NVFP4, scales are off by up to a sixteenth everywhere, which loses more (`benchmarks/log.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 127
_LEAST, _MOST = -24, 9  # exponents for which every product is an fp16 number
_BIAS = 127


def row_exponents(scales: Tensor) -> Tensor:
    """The exponents for scales [rows, groups]; float32 integers [rows, 1]."""
    mantissa, exponent = torch.frexp(scales.float().abs().amax(1, keepdim=True) / _LARGEST)
    return torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(_LEAST, _MOST).float()


def nearest_small(scales: Tensor, exponents: Tensor) -> Tensor:
    """The nearest nonzero scales under given exponents, with their sign; fp16."""
    unit = torch.ldexp(torch.ones_like(exponents), exponents.int())
    magnitude = (scales.float().abs() / unit).round_().clamp_(1, _LARGEST)
    return (torch.where(scales < 0, -magnitude, magnitude) * unit).half()


def to_bytes(scales: Tensor) -> Tensor:
    """The stored bytes of fp16 scales [rows, groups] from `nearest_small`: uint8 [rows, 1 + groups]."""
    exponents = row_exponents(scales)
    numbers = torch.ldexp(scales.float(), -exponents.int()).to(torch.int8)
    return torch.cat([(exponents + _BIAS).byte(), numbers.view(torch.uint8)], 1)


def from_bytes(stored: Tensor) -> Tensor:
    """The inverse of `to_bytes`: fp16 scales [rows, groups]."""
    numbers = stored[:, 1:].contiguous().view(torch.int8).float()
    return torch.ldexp(numbers, stored[:, :1].int() - _BIAS).half()
