"""Whether a model can write text token by token."""

from __future__ import annotations

import torch
from torch import nn

from mpq.data.batch import Batch
from mpq.errors import DataError
from mpq.models.running.forward import accepted, call


def decodes(module: nn.Module, prompt: torch.Tensor) -> bool:
    """Whether a model gives logits of the next token and a cache for a prompt [samples, tokens]."""
    if not {"input_ids", "past_key_values", "use_cache"} <= set(accepted(module)):
        return False
    try:
        found = call(module, Batch((), {"input_ids": prompt, "use_cache": True}))
    except DataError:  # it needs more than tokens
        return False
    logits = getattr(found, "logits", None)
    return isinstance(logits, torch.Tensor) and logits.ndim == 3 and getattr(found, "past_key_values", None) is not None
