"""Reads an input as a mask of positions: its form, and which of its values mean data.

A mask may be boolean, zeros and ones, additive (zero, and -inf or similar), or lengths; it may have dimensions for heads and queries. Its
name does not reliably say whether true means data (`attention_mask`) or padding (`key_padding_mask`), but the other inputs do: padding is
one repeated value, and data is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpq.data.batch import is_integer

_NAMES = re.compile(r"mask|pad|valid")
_OTHERS = re.compile(r"causal|global|special|masked|head|pixel|token_type|loss")
"""Names of masks that say something else than which positions are data."""
_FOREIGN = re.compile(r"encoder_|memory|cross|observed")
"""Names of masks that may be of other positions than those of the output."""
_KNOWN = re.compile(r"(decoder_|tgt_|src_|input_)?(attention_mask|attn_mask|key_padding_mask)")
_HUGE = -1e3  # an additive mask suppresses with this or less


class Sides(NamedTuple):
    """The two interpretations of a mask, bool [samples, positions...]: true values are data, or false values are."""

    true: Tensor
    false: Tensor


def sides_of(name: str, mask: Tensor, size: int, contents: Sequence[Tensor]) -> Sides | None:
    """An input as a mask of positions; None if it does not have the form of one.

    Args:
        name: name of the input; only if it looks like the name of a mask, the mask may have query and head dimensions, or be additive.
        mask: the input, samples first.
        size: number of samples.
        contents: the other inputs; a mask with three dimensions belongs to an image if one of them has its height and width.
    """
    if mask.ndim < 2 or len(mask) != size or _is_triangular(mask):
        return None
    if _is_binary(mask):
        allowed = mask.bool()
    elif mask.is_floating_point() and float(mask.max()) == 0 and bool(((mask == 0) | (mask <= _HUGE)).all()):
        allowed = mask == 0
    else:
        return None
    if mask.ndim == 2 or any(_aligned(content, allowed) is not None for content in contents):
        return Sides(allowed, ~allowed)
    if not looks_like_mask(name):
        return None
    between = list(range(1, mask.ndim - 1))
    return Sides(allowed.amax(between), (~allowed).amax(between))


def looks_like_mask(name: str) -> bool:
    """Whether a name is typical of masks of positions."""
    return bool(_NAMES.search(name)) and not _OTHERS.search(name)


def said_by_content(name: str, sides: Sides, contents: Sequence[Tensor]) -> bool | None:
    """Whether true values mean data according to the other inputs; None if they do not show it.

    A mask with an unusual name must also have its padding at one end of every sample.
    """
    votes = set()
    for content in contents:
        aligned = _aligned(content, sides.true)
        if aligned is not None and not _is_binary(aligned):
            votes |= {side for side, kept in ((True, sides.true), (False, sides.false)) if _is_padding(aligned, kept)}
    if len(votes) != 1:
        return None
    (vote,) = votes
    usual = looks_like_mask(name) or _at_one_end(sides.true if vote else sides.false)
    return vote if usual else None


def said_by_name(name: str, mask: Tensor) -> bool | None:
    """Whether true values mean data according to the name; None if it is not the name of a mask."""
    if mask.is_floating_point() and bool((mask < 0).any()):
        return True if looks_like_mask(name) and not _FOREIGN.match(name) else None
    if not looks_like_mask(name) or _FOREIGN.match(name):
        return None
    return not name.endswith("key_padding_mask") and not ("pad" in name and mask.dtype == torch.bool)


def is_certain(name: str) -> bool:
    """Whether the values of a mask with this name have the same meaning in all programs."""
    return bool(_KNOWN.fullmatch(name))


def precedence(name: str) -> int:
    """The precedence of masks for the output's positions: the decoder's first, those of other inputs last."""
    if _FOREIGN.match(name):
        return 3
    return 0 if name.startswith(("decoder_", "tgt_")) else 1 if _KNOWN.fullmatch(name) else 2


def lengths_mask(lengths: Tensor, positions: int) -> Tensor:
    """The mask for lengths of padded sequences, bool [samples, positions]."""
    return torch.arange(positions) < lengths.unsqueeze(1)


def are_lengths(values: Tensor, size: int, contents: Sequence[Tensor]) -> int | None:
    """The number of positions, if integers are the lengths of another input's rows, judged by the values behind their ends; else None."""
    if values.shape != (size,) or not is_integer(values) or size < 2 or not 1 <= int(values.min()) < int(values.max()):
        return None
    for content in contents:
        if content.ndim > 1 and int(values.max()) <= content.shape[1] and _is_padding(content, lengths_mask(values, content.shape[1])):
            return int(content.shape[1])
    return None


def _aligned(content: Tensor, mask: Tensor) -> Tensor | None:
    """An input with the mask's positions right after its samples; None if it has different ones."""
    if content.shape[: mask.ndim] == mask.shape:
        return content
    if mask.ndim == 3 and content.ndim == 4 and len(content) == len(mask) and content.shape[2:] == mask.shape[1:]:
        return content.movedim(1, -1)
    return None


def _is_padding(content: Tensor, kept: Tensor) -> bool:
    """Whether all values that are not kept are one value, which is rare among the kept ones."""
    out = content[~kept].flatten(1) if content.ndim > kept.ndim else content[~kept].unsqueeze(1)
    if not len(out) or not bool(kept.any()) or not bool((out == out[0]).all()):
        return False
    data = content[kept].flatten(1) if content.ndim > kept.ndim else content[kept].unsqueeze(1)
    return float((data == out[0]).all(1).double().mean()) < 0.5


def _at_one_end(kept: Tensor) -> bool:
    """Whether all rows start with kept values and end with others, or the reverse; of images, rows and columns."""
    if kept.ndim == 3:
        rows, columns = kept.any(2), kept.any(1)
        return torch.equal(kept, rows.unsqueeze(2) & columns.unsqueeze(1)) and _at_one_end(rows) and _at_one_end(columns)
    flat = kept.flatten(1).int()
    steps = flat[:, 1:] - flat[:, :-1]
    return bool((steps <= 0).all()) or bool((steps >= 0).all())


def _is_triangular(mask: Tensor) -> bool:
    """Whether this is a causal mask shared by all samples, whose number happens to equal that of the positions."""
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1] or len(mask) < 2:
        return False
    lower = torch.ones_like(mask, dtype=torch.bool).tril()
    seen = mask == mask[-1, 0]
    return torch.equal(seen, lower)


def _is_binary(mask: Tensor) -> bool:
    return mask.dtype == torch.bool or bool(((mask == 0) | (mask == 1)).all())
