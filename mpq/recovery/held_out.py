"""Whether weights changed for an artifact are better than those before, on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.models.reference import Reference
from mpq.records.paired import compare


class Judged(NamedTuple):
    """Mean errors before and after a change, whether it is better or worse beyond noise, and the figures for people."""

    better: bool
    worse: bool
    before: float
    after: float
    figures: str


def judged(module: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor], data: Data, metric: Metric) -> Judged:
    """Compare two sets of weights, by canonical name, sample by sample; the module, unquantized, is unchanged afterwards."""
    reference = Reference(module, data, metric)
    errors = [reference.errors(weights).numpy() for weights in (before, after)]
    found, (first, second) = compare(errors[1], errors[0]), (float(one.mean()) for one in errors)
    figures = f"{metric.name} on {data.samples} held-out samples {first:.4g} without, {second:.4g} with"
    return Judged(found.better, found.worse, first, second, figures)
