"""Weights that a call modifies: embedding tables with `max_norm`, whose rows are renormalized when they are looked up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpq.shown import listed


def rewritten_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights that a call of `module` may write to, by name."""
    return {
        f"{name}.weight" if name else "weight": child.weight
        for name, child in module.named_modules()
        if isinstance(child, (nn.Embedding, nn.EmbeddingBag)) and child.max_norm is not None
    }


@contextmanager
def weights_kept(module: nn.Module) -> Iterator[None]:
    """Restore the weights that a call within the `with` modifies."""
    saved = [(weight, weight.detach().clone()) for weight in rewritten_weights(module).values()]
    try:
        yield
    finally:
        for weight, old in saved:
            with torch.no_grad():
                weight.data.copy_(old)


def renorm_notes(module: nn.Module) -> list[str]:
    """Notes on such weights."""
    names = list(rewritten_weights(module))
    return [f"calls renormalize rows of {listed(names, 4)} (max_norm); they are restored after every call"] if names else []
