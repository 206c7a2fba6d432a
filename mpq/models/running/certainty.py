"""Whether the reference is nearly certain of its answers on some samples, as models are on those that they were trained on.

A quantization error that hardly moves a certain answer moves an uncertain one a lot. So divergences on training samples are far below
those on other data: for a ResNet on CIFAR-10 by a factor of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence, Metric

_SAMPLES = 256
_CERTAIN = 0.02  # of the entropy of an answer that is not known at all
_RIGHT = 0.99


class _Answers(NamedTuple):
    entropy: Tensor  # nats, of each position that counts
    right: Tensor  # of each sample with one label; empty without
    classes: int


def certainty_note(module: nn.Module, batches: Sequence[Batch], metric: Metric) -> str | None:
    """What to say where the reference is nearly certain; None where it is not, or where no output is logits or probabilities.

    Args:
        module: the unquantized model.
        batches: calibration samples; the first ones are run.
        metric: the comparison of the analysis.
    """
    if not isinstance(metric, Comparison):
        return None
    place = next((place for place, each in enumerate(metric.metrics) if isinstance(each, KLDivergence)), None)
    if place is None:
        return None
    found = list(_answers(module, batches, metric, place))
    entropy, right = torch.cat([each.entropy for each in found]), torch.cat([each.right for each in found])
    mean, most = float(entropy.mean()), math.log(max(2, found[0].classes))
    accuracy = float(right.double().mean()) if len(right) else None
    if mean > _CERTAIN * most or (accuracy is not None and accuracy < _RIGHT):
        return None
    known = "" if accuracy is None else f", accuracy {accuracy:.1%}"
    return (
        f"the reference is nearly certain on these samples (mean entropy {mean:.2g} of at most {most:.2g} nats{known}), as on samples that "
        "it was trained on: divergences on other data will be larger; calibrate on validation data"
    )


def _answers(module: nn.Module, batches: Sequence[Batch], metric: Comparison, place: int) -> Iterator[_Answers]:
    """What the first samples say, batch by batch."""
    seen = 0
    for batch in batches:
        if seen >= _SAMPLES:
            return
        seen += batch.size
        output = metric.picked(forward(module, batch))[place]
        probabilities, negative, *more = metric.metrics[place].prepare([output], batch.mask if metric.parts[place].mask else None)
        weights = next((extra for extra in more if extra.ndim == 2), None)
        entropy = -negative if weights is None else -negative[weights > 0]
        labelled = (
            batch.labels is not None and batch.labels.ndim == 1 and probabilities.shape[1] == 1 and not batch.labels.is_floating_point()
        )
        right = probabilities[:, 0].argmax(-1) == batch.labels if labelled else torch.zeros(0, dtype=torch.bool)
        yield _Answers(entropy.flatten().double(), right, output.shape[-1])
