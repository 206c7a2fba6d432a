"""Logits: which classes count, and divergences over them, a few positions at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpq.models.running.positions import PIECE, kept_values

SUPPRESSED = 1000.0  # nats below the largest logit of a row: such a class has probability zero in every dtype


def log_likelihoods(output: Tensor, *, probabilities: bool) -> Tensor:
    """The logarithms of the probabilities of classes [..., classes], of probabilities or of logits; that of 0 is finite for the former."""
    return output.clamp(min=1e-30).log() if probabilities else output.log_softmax(-1)


def by_position(output: Tensor) -> Tensor:
    """An output as [samples, positions, classes]."""
    return output.reshape(len(output), -1, output.shape[-1])


def parts_of(output: Tensor) -> list[slice]:
    """Positions of an output [samples, positions, classes] in parts of some megabytes: only they are in memory several times."""
    step = max(1, PIECE // max(1, len(output) * output.shape[-1]))
    return [slice(start, start + step) for start in range(0, output.shape[1], step)] or [slice(0, 0)]


def joined(parts: Sequence[Tensor | None], output: Tensor) -> Tensor | None:
    """The allowed classes of all parts of an output; None if all are allowed everywhere."""
    if all(part is None for part in parts):
        return None
    own = (output[:, rows] for rows in parts_of(output))
    return torch.cat([torch.ones_like(rows, dtype=torch.bool) if part is None else part for part, rows in zip(parts, own, strict=True)], 1)


def allowed_classes(logits: Tensor) -> Tensor | None:
    """Which classes are not suppressed, bool of the same shape; None if none is."""
    allowed = logits > logits.amax(-1, keepdim=True) - SUPPRESSED
    return None if bool(allowed.all()) or bool(logits.isnan().any()) else allowed


def centred(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Logits minus their mean over the allowed classes, zero elsewhere: only differences matter, and the sums below lose fewer digits."""
    if allowed is None:
        return logits - logits.mean(-1, keepdim=True)
    values = kept_values(logits, allowed)
    return kept_values(values - values.sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True), allowed)


def cross(probabilities: Tensor, logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Expected log-probability [samples, positions]; both terms of the divergence use this, so equal outputs give exactly zero."""
    total = torch.logsumexp(logits if allowed is None else logits.masked_fill(~allowed, -torch.inf), -1)
    return torch.einsum("spc,spc->sp", probabilities, logits) - total
