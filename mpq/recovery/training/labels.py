"""Labels in the loss: half of it is the metric to the unquantized model's outputs, the other half the cross-entropy of the right answers.

The answers are the labels of the samples, or the next tokens of a language model's text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.errors import DataError, UsageError
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.running.logits import log_likelihoods
from mpq.models.running.metrics import KLDivergence, Metric, Outputs, Prepared
from mpq.models.running.targets import possible, targets

SHARE = 0.5  # of the loss


class LabelMix(Metric):
    """A metric and the cross-entropy of the right answers, mixed.

    Args:
        metric: one that compares logits or probabilities by their divergence.
        divergence: what the half of the loss is that needs no labels, if not the metric itself.

    Raises:
        UsageError: if it is another.
    """

    def __init__(self, metric: Metric, divergence: Metric | None = None) -> None:
        self.name, self._metric, self._divergence = metric.name, metric, divergence or metric
        self._place, self._probabilities = _classes(metric)

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """Not possible: labels belong to a batch."""
        raise DataError("labels belong to a batch")

    def prepare_batch(self, reference: Outputs, batch: Batch) -> Prepared:
        """What the metric keeps, the answers, and which of them count: no padding, and no class that the unquantized model suppresses.

        Raises:
            DataError: if the batch has no answers.
        """
        output = self._picked(reference)[self._place]
        logits, wanted, kept = targets(output, batch)
        if wanted is not None and not self._probabilities:
            kept = kept.to(logits.device) & possible(logits, wanted)
        if wanted is None or not bool(kept.any()):
            raise DataError(
                f"no labels that fit an output of {list(output.shape)}: give pairs of inputs and labels (one class for each row), or train "
                "without --labels"
            )
        return self._divergence.prepare_batch(reference, batch), wanted.to(output.device), kept.to(output.device)

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """The mix for each sample; the cross-entropy in nats, averaged over the answers of the sample."""
        own, wanted, kept = prepared
        return (1 - SHARE) * self._divergence.errors(own, outputs) + SHARE * self._losses(outputs, wanted, kept)

    def _losses(self, outputs: Outputs, wanted: Tensor, kept: Tensor) -> Tensor:
        logits = self._picked(outputs)[self._place].float()
        logits = logits[:, : wanted.shape[1]] if logits.ndim > 2 else logits
        logs = log_likelihoods(logits, probabilities=self._probabilities)
        chosen = -logs.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1).double()
        counted = torch.where(kept, chosen, 0.0).reshape(len(kept), -1)
        return counted.sum(-1) / kept.reshape(len(kept), -1).sum(-1).clamp(min=1)

    def _picked(self, outputs: Outputs) -> Sequence[Tensor]:
        return self._metric.picked(outputs) if isinstance(self._metric, Comparison) else outputs


def check_labels(module: nn.Module, data: Data, metric: Metric) -> None:
    """Check that samples have labels to train with; runs one batch.

    Raises:
        DataError: if they have none that fit the output.
        UsageError: if the metric does not compare classes.
    """
    mixed, first = LabelMix(metric), data.batches[0]
    try:
        mixed.prepare_batch(forward(module, first), first)
    except DataError as problem:
        raise DataError(f"{data.source}: {problem}") from problem
    without = sum(batch.size for batch in data.batches if (batch.known_labels is None) != (first.known_labels is None))
    if without:
        raise DataError(f"{data.source}: only some of the {data.samples} samples have labels: label all of them, or none")


def _classes(metric: Metric) -> tuple[int, bool]:
    """Which of the compared outputs has classes, and whether it is probabilities."""
    metrics = metric.metrics if isinstance(metric, Comparison) else (metric,)
    for place, each in enumerate(metrics):
        if isinstance(each, KLDivergence) and not each.over_positions:
            return place, each.probabilities
    raise UsageError(f"--labels needs a model that returns logits or probabilities, and this plan compares its outputs by {metric.name}")
