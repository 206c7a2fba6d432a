"""The rate at each step: it rises over the first tenth of the steps and then falls in a line to zero; and gradients that are too long."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

WARM_UP = 0.1
_LONGEST = 2.0  # times the median length of the last gradients
REMEMBERED = 32


def share_at(step: int, steps: int) -> float:
    """The share of the full rate at `step` of `steps`, the first being 0."""
    warm = max(1, math.ceil(WARM_UP * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def length_of(gradients: Mapping[str, Tensor]) -> float:
    """The norm of all gradients together."""
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values()))


def clipped(gradients: Mapping[str, Tensor], length: float, before: Sequence[float]) -> dict[str, Tensor]:
    """The gradients, no longer together than twice the median of those before (AutoClip: Seetharaman et al. 2020, arXiv 2007.14469).

    Args:
        gradients: by name.
        length: their norm.
        before: norms of the gradients of the steps before.
    """
    most = _LONGEST * statistics.median(before) if len(before) >= REMEMBERED // 4 else math.inf
    if length <= most:
        return dict(gradients)
    return {name: torch.mul(gradient, most / length) for name, gradient in gradients.items()}
