"""Detects whether the reference is nearly certain of its answers, as models are on their training samples, and whether it is more certain
on calibration samples than on held-out ones.

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
from mpq.models.running.positions import mask_of_output

_SAMPLES = 256
_CERTAIN = 0.02  # share of the entropy of a completely unknown answer
_RIGHT = 0.99
_APART = 1.25  # times the entropy on calibration samples
_FEWEST = 4  # samples
_ERRORS = 3.0  # standard errors between the two means


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
        self._found.append(_answers(self._comparison.metrics[self._place], output, batch, place=part.mask))

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

    @property
    def by_sample(self) -> Tensor:
        """The mean entropy of each sample, nats."""
        return torch.cat([each.by_sample for each in self._found]) if self._found else torch.zeros(0, dtype=torch.float64)

    def shift_note(self, held_out: Certainty) -> str | None:
        """What to say where the reference is clearly more certain on these calibration samples than on held-out ones; None elsewhere."""
        mine, others = self.by_sample, held_out.by_sample
        if min(len(mine), len(others)) < _FEWEST:
            return None
        low, high = float(mine.mean()), float(others.mean())
        noise = math.sqrt(float(mine.var()) / len(mine) + float(others.var()) / len(others))
        if high < _APART * low or high - low < _ERRORS * noise:
            return None
        return (
            f"the calibration samples are easier than the held-out ones (mean entropy of the reference {low:.2g} and {high:.2g} nats), so "
            "errors in the table and predicted errors are too small for other data; calibrate on more samples, of more documents"
        )


class _Answers(NamedTuple):
    entropy: Tensor  # nats, for each position that counts
    by_sample: Tensor  # its mean over each sample
    right: Tensor  # for each sample with one label; empty without labels
    classes: int


def certainty_of(module: nn.Module, batches: Sequence[Batch], metric: Metric) -> Certainty:
    """How certain the reference is on some samples.

    Args:
        module: the unquantized model.
        batches: the first of their samples are run.
        metric: the comparison of the analysis.
    """
    certainty = Certainty(metric)
    for batch in batches:
        if not certainty.wants or not isinstance(metric, Comparison):
            break
        certainty.add(metric.picked(forward(module, batch)), batch)
    return certainty


def _answers(metric: Metric, output: Tensor, batch: Batch, *, place: str | None) -> _Answers:
    """The entropies and probabilities of one batch."""
    probabilities, negative, *more = metric.prepare([output], mask_of_output(batch.mask, output, place))
    weights = next((extra for extra in more if extra.ndim == 2), None)
    entropy = -negative if weights is None else -negative[weights > 0]
    by_sample = -negative.double().mean(-1) if weights is None else -(negative.double() * weights).sum(-1)
    labelled = batch.labels is not None and batch.labels.ndim == 1 and probabilities.shape[1] == 1 and not batch.labels.is_floating_point()
    right = probabilities[:, 0].argmax(-1).cpu() == batch.labels if labelled else torch.zeros(0, dtype=torch.bool)
    return _Answers(entropy.flatten().cpu().double(), by_sample.cpu(), right, output.shape[-1])
