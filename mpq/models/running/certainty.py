"""Detects whether the reference is nearly certain of its answers, as models are on their training samples.

A quantization error that hardly changes a certain answer changes an uncertain one a lot. So divergences on training samples are far below
those on other data: for a ResNet on CIFAR-10 by a factor of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence, Metric

_SAMPLES = 256
_CERTAIN = 0.02  # share of the entropy of a completely unknown answer
_RIGHT = 0.99


class Certainty:
    """Collects how certain the reference is of its answers, batch by batch, on the first samples only.

    Args:
        metric: the comparison of the analysis or the evaluation.
    """

    def __init__(self, metric: Metric) -> None:
        self._comparison = metric if isinstance(metric, Comparison) else None
        parts = [] if self._comparison is None else self._comparison.metrics
        self._place = next((place for place, each in enumerate(parts) if isinstance(each, KLDivergence)), None)
        self._found: list[_Answers] = []
        self._seen = 0

    @property
    def wants(self) -> bool:
        """Whether another batch is needed: an output has logits or probabilities, and few samples were examined so far."""
        return self._place is not None and self._seen < _SAMPLES

    def add(self, picked: Sequence[Tensor], batch: Batch) -> None:
        """Examine the reference's compared outputs of one batch."""
        if not self.wants or self._comparison is None or self._place is None:
            return
        self._seen += batch.size
        output, part = picked[self._place], self._comparison.parts[self._place]
        self._found.append(_answers(self._comparison.metrics[self._place], output, batch, masked=bool(part.mask)))

    def note(self, advice: str) -> str | None:
        """A note if the reference is nearly certain; None if it is not, or if no output is logits or probabilities.

        Args:
            advice: what to do instead, for example "calibrate on validation data".
        """
        if not self._found:
            return None
        entropy, right = (torch.cat([getattr(each, name) for each in self._found]) for name in ("entropy", "right"))
        mean, most = float(entropy.mean()), math.log(max(2, self._found[0].classes))
        accuracy = float(right.double().mean()) if len(right) else None
        if mean > _CERTAIN * most or (accuracy is not None and accuracy < _RIGHT):
            return None
        known = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        return (
            f"the reference is nearly certain on these samples (mean entropy {mean:.2g} of at most {most:.2g} nats{known}), as on "
            f"training data: divergences on other data will be larger; {advice}"
        )


class _Answers(NamedTuple):
    entropy: Tensor  # nats, for each position that counts
    right: Tensor  # for each sample with one label; empty without labels
    classes: int


def certainty_note(module: nn.Module, batches: Sequence[Batch], metric: Metric) -> str | None:
    """A note if the reference is nearly certain on calibration samples; else None.

    Args:
        module: the unquantized model.
        batches: calibration samples; the first ones are run.
        metric: the comparison of the analysis.
    """
    certainty = Certainty(metric)
    for batch in batches:
        if not certainty.wants or not isinstance(metric, Comparison):
            break
        certainty.add(metric.picked(forward(module, batch)), batch)
    return certainty.note("calibrate on validation data")


def _answers(metric: Metric, output: Tensor, batch: Batch, *, masked: bool) -> _Answers:
    """The entropies and probabilities of one batch."""
    probabilities, negative, *more = metric.prepare([output], batch.mask if masked else None)
    weights = next((extra for extra in more if extra.ndim == 2), None)
    entropy = -negative if weights is None else -negative[weights > 0]
    labelled = batch.labels is not None and batch.labels.ndim == 1 and probabilities.shape[1] == 1 and not batch.labels.is_floating_point()
    right = probabilities[:, 0].argmax(-1) == batch.labels if labelled else torch.zeros(0, dtype=torch.bool)
    return _Answers(entropy.flatten().double(), right, output.shape[-1])
