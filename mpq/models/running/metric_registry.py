"""Metrics by name, and how an evaluation reports them. No torch: a metric's file is imported when the metric is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpq.registry import Registry

if TYPE_CHECKING:
    from mpq.models.running.metrics import Metric

METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "kl_divergence": ("mpq.models.running.metrics:KLDivergence", "KL divergence"),
        "relative_mse": ("mpq.models.running.metrics:RelativeMSE", "relative squared error"),
        "top1": ("mpq.models.running.metrics:Top1Disagreement", "top-1 disagreement"),
        "cosine": ("mpq.models.running.metrics:CosineDistance", "cosine distance"),
    },
)


@dataclass(frozen=True)
class Evaluated:
    """A metric in an evaluation.

    Args:
        figure: the name of the reported value, the mean over samples.
        agreement: the value is 1 - error, so that larger is better.
        classes: only if the output is logits or probabilities.
        quantiles: additional values: a quantile of the error over samples, by name.
    """

    figure: str
    agreement: bool = False
    classes: bool = False
    quantiles: tuple[tuple[str, float], ...] = ()


EVALUATED: Mapping[str, Evaluated] = {
    "kl_divergence": Evaluated("kl_divergence", classes=True, quantiles=(("kl_q95", 0.95), ("kl_max", 1.0))),
    "top1": Evaluated("top1_agreement", agreement=True, classes=True),
    "relative_mse": Evaluated("relative_mse"),
    "cosine": Evaluated("cosine_similarity", agreement=True),
}
"""The metrics of an evaluation, in its order."""
_AGAINST_LABELS = ("accuracy", "loss", "perplexity")
COMBINED = "combined"
"""The error of several outputs, each divided by its spread, so that it is neither nats nor a relative error."""
FIGURES = (*(name for each in EVALUATED.values() for name in (each.figure, *dict(each.quantiles))), COMBINED, *_AGAINST_LABELS)
"""Every value that an evaluation may have."""
AGREEMENTS = tuple(each.figure for each in EVALUATED.values() if each.agreement)
"""Values for which 1 is best."""
