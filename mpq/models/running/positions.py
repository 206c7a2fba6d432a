"""Positions of outputs: which ones count, and random signs for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PIECE = 1 << 22
"""Values that are worked on at a time."""


def expanded(mask: Tensor, output: Tensor) -> Tensor | None:
    """`mask` [samples, positions...] in the dimensions of `output`; None if the output has different positions.

    Positions come right after the samples, or, as in maps of classes [samples, classes, height, width], after the channels.
    """
    if output.shape[: mask.ndim] == mask.shape:
        return mask.reshape(*mask.shape, *[1] * (output.ndim - mask.ndim))
    if mask.ndim > 2 and output.ndim == mask.ndim + 1 and output.shape[2:] == mask.shape[1:] and len(output) == len(mask):
        return mask.unsqueeze(1)
    return None


def mask_of_output(mask: Tensor | None, output: Tensor, place: str | None) -> Tensor | None:
    """A batch's mask in the positions of one output; None if every position counts.

    Args:
        mask: [samples, positions...], or None.
        output: the output.
        place: what the mask applies to: "positions" of the output as they are, "scaled" to the output's numbers of positions, those in the
            "last" dimension, the "classes", or None.
    """
    if mask is None or place is None:
        return None
    mask = mask.to(output.device)
    if place == "scaled":
        return _scaled(mask, output.shape[1:2] if mask.ndim == 2 else output.shape[2:])
    if place == "last":
        own = _scaled(mask, output.shape[-1:])
        return own.reshape(len(own), *[1] * (output.ndim - 2), -1).expand(output.shape)
    return mask


def _scaled(mask: Tensor, positions: Sequence[int]) -> Tensor:
    """A mask [samples, positions...] of other numbers of positions: those count that lie within data, or, if none does, touch it."""
    if mask.shape[1:] == tuple(positions):
        return mask
    images = mask.float().reshape(len(mask), 1, -1, mask.shape[-1])
    shares = torch.nn.functional.adaptive_avg_pool2d(images, (1 if mask.ndim == 2 else positions[0], positions[-1]))
    shares = shares.reshape(len(mask), *positions)
    whole = shares > 1 - 1e-4
    return torch.where(whole.flatten(1).any(1).reshape(-1, *[1] * (mask.ndim - 1)), whole, shares > 0)


def kept_values(values: Tensor, mask: Tensor) -> Tensor:
    """`values`, with zero where `mask` is false; no gradients flow through those."""
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def flat(output: Tensor, mask: Tensor | None = None) -> Tensor:
    """An output as float32 [samples, values], zero at positions that do not count."""
    values = output.float()
    wide = None if mask is None else expanded(mask, output)
    if wide is not None:
        values = kept_values(values, wide)
    return values.reshape(len(output), -1)


def finite(values: Tensor) -> Tensor:
    """`values`, with zero in place of infinite ones; NaN stays."""
    return kept_values(values, ~values.isinf())


def position_weights(rows: Tensor, output: Tensor, mask: Tensor | None) -> Tensor | None:
    """The weight of each position, float64 [samples, positions], summing to one for each sample; None if all count equally.

    Args:
        rows: [samples, positions, ...], the values to weight.
        output: the tensor that `rows` was made from; its last dimension is not a position.
        mask: [samples, positions...] or None.
    """
    if mask is None or output.shape[:-1] != mask.shape:
        return None
    kept = mask.reshape(len(mask), -1).double()
    return kept / kept.sum(-1, keepdim=True).clamp(min=1) if kept.shape == rows.shape[:2] else None


def in_pieces(values: Tensor) -> tuple[Tensor, ...]:
    """The values one after the other, in parts of a few megabytes: what is computed from one part does not take the memory of all."""
    return torch.split(values.detach().flatten(), PIECE) if values.numel() else ()


def random_signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Independent, equally likely +1 and -1, float32; each random number gives 32 of them."""
    count = math.prod(shape)
    words = torch.randint(-(2**31), 2**31, (-(-count // 32), 1), generator=generator, dtype=torch.int32)
    bits = (words >> torch.arange(32, dtype=torch.int32)) & 1
    return bits.reshape(-1)[:count].view(list(shape)).float().mul_(2).sub_(1)
