"""Accuracy and log-likelihood of one model, against labels or the next tokens of the text."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.models.running.targets import targets


class Answers:
    """Counts over batches; padding and labels of -100 are not counted.

    Args:
        probabilities: whether outputs are probabilities rather than logits.
    """

    def __init__(self, *, probabilities: bool) -> None:
        self._probabilities = probabilities
        self.answers = self.right = 0
        self.loss = 0.0
        self.language = False

    def add(self, output: Tensor, batch: Batch) -> None:
        """Count one batch; without labels and tokens nothing is counted."""
        logits, wanted, kept = targets(output, batch)
        if wanted is None:
            return
        self.language = self.language or logits.ndim == 3
        flat, wanted, counts = (
            logits.reshape(-1, logits.shape[-1]).float(),
            wanted.reshape(-1).to(logits.device),
            kept.reshape(-1).to(logits.device),
        )
        logs = flat.clamp(min=1e-30).log() if self._probabilities else torch.log_softmax(flat, -1)
        chosen = logs.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        self.loss -= float(chosen[counts].double().sum())
        self.right += int((flat.argmax(-1) == wanted)[counts].sum())
        self.answers += int(counts.sum())
