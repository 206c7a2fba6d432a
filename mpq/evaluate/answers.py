"""Accuracy and log-likelihood of one model, against labels or the next tokens of the text."""

from __future__ import annotations

import math

from torch import Tensor

from mpq.data.batch import Batch
from mpq.models.running.logits import log_likelihoods
from mpq.models.running.targets import possible, targets

_LARGEST = 709.0  # nats, of which the exponential is a number


class Answers:
    """Counts over batches; padding and labels of -100 are not counted.

    Args:
        probabilities: whether outputs are probabilities rather than logits.

    Attributes:
        answers: that count.
        right: of these.
        loss: sum of the negative log-likelihoods of those that the reference does not suppress.
        suppressed: answers that it does.
        language: whether answers belong to positions of a sequence.
    """

    def __init__(self, *, probabilities: bool) -> None:
        self._probabilities = probabilities
        self.answers = self.right = self.suppressed = 0
        self.loss = 0.0
        self.language = False

    def add(self, output: Tensor, batch: Batch, *, reference: Tensor | None = None) -> None:
        """Count one batch; without labels and tokens nothing is counted.

        Args:
            output: logits or probabilities [samples, classes] or [samples, positions, classes].
            batch: the inputs and labels.
            reference: the unquantized model's output, which says which classes are suppressed; None for none.
        """
        logits, wanted, kept = targets(output, batch)
        if wanted is None:
            return
        self.language = self.language or logits.ndim == 3
        wanted, kept = wanted.to(logits.device), kept.to(logits.device)
        flat, answers, counts = logits.reshape(-1, logits.shape[-1]).float(), wanted.reshape(-1), kept.reshape(-1)
        logs = log_likelihoods(flat, probabilities=self._probabilities)
        chosen = logs.gather(-1, answers.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        weighed = counts
        if reference is not None and not self._probabilities:
            weighed = counts & possible(targets(reference, batch)[0], wanted).reshape(-1)
        self.loss -= float(chosen[weighed].double().sum())
        self.right += int((flat.argmax(-1) == answers)[counts].sum())
        self.answers += int(counts.sum())
        self.suppressed += int((counts & ~weighed).sum())

    @property
    def mean_loss(self) -> float:
        """Nats for each answer that is not suppressed; NaN if all are."""
        weighed = self.answers - self.suppressed
        return self.loss / weighed if weighed else math.nan

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss; infinite where that is too large."""
        return math.exp(self.mean_loss) if self.mean_loss < _LARGEST else math.inf
