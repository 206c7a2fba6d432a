"""Whether an artifact holds tuned scales, codes and vectors: only if held-out samples, which nothing was tuned on, say so beyond noise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from mpq.config import TUNE_MINUTES
from mpq.errors import MpqError
from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.models.reference import Reference
from mpq.models.variants import as_parameters
from mpq.records.layer import Layer
from mpq.records.paired import Errors, compare
from mpq.records.sensitivity import standard_error
from mpq.recovery.tuning import OUT_OF_TIME, PASSES, Progress, Tuned, tune
from mpq.tensors.quantized import QuantizedWeight

_LEAST_SAMPLES = 2  # of either part


@dataclass(frozen=True)
class Tuning:
    """What was decided.

    Args:
        reason: for people, with the figures.
        metric: of the errors.
        before: mean error on the held-out samples without tuning, with the corrections that were taken; None where nothing was measured.
        after: the same with tuning.
        stderr: standard errors of both.
        seconds: that tuning took.
        weights: by layer name, where they are taken.
        vectors: by name in the state dict, the same.
    """

    reason: str
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    stderr: tuple[float, float] | None = None
    seconds: float | None = None
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def taken(self) -> bool:
        """Whether the artifact is tuned."""
        return bool(self.weights or self.vectors)


def tuning(
    module: nn.Module,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    corrected: Mapping[str, Tensor],
    data: tuple[Data, Data],
    metric: Metric,
    *,
    seed: int,
    minutes: float = TUNE_MINUTES,
    on_progress: Progress | None = None,
) -> Tuning:
    """Tuned values for what the artifact stores, if the error on the held-out samples is smaller with them beyond noise.

    Args:
        module: the unquantized model; unchanged afterwards.
        layers: the quantized layers.
        weights: as the quantizer left them, by layer name.
        corrected: corrections that were taken, by name in the state dict.
        data: the samples to tune on, and those that decide.
        metric: what an error is.
        seed: of the order of samples.
        minutes: time allowed.
        on_progress: told after each step.
    """
    calibration, held_out = data
    if min(calibration.samples, held_out.samples) < _LEAST_SAMPLES:
        return Tuning(f"not tuned: {calibration.samples} samples to tune on and {held_out.samples} to judge by are too few")
    began = time.monotonic()
    try:
        found = tune(module, layers, weights, corrected, calibration, metric, seed=seed, seconds=60 * minutes, on_progress=on_progress)
    except MpqError as problem:
        return Tuning(f"not tuned: {problem}")
    seconds = time.monotonic() - began
    how = f"{_passes(found)} over {found.samples} samples in {seconds:.0f} s{_shortened(found, minutes)}"
    if not found.weights and not found.vectors:
        return Tuning(f"not tuned: no gain on the samples kept aside, {how}", seconds=seconds)
    reference = Reference(module, held_out, metric)
    values, changed = as_parameters(weights, layers) | dict(corrected), as_parameters(found.weights, layers)
    before, after = (reference.errors(one).numpy() for one in (values, {**values, **changed, **found.vectors}))
    figures = f"{metric.name} on {held_out.samples} held-out samples {_figure(before)} without, {_figure(after)} with"
    facts = metric.name, float(before.mean()), float(after.mean()), (standard_error(before), standard_error(after)), seconds
    if not compare(after, before).better:
        return Tuning(f"not tuned: {figures}, no gain beyond noise; {how}", *facts)
    parts = f"scales{' and codes' if found.codes else ''} of {len(found.weights)} layers and {len(found.vectors)} vectors"
    return Tuning(f"tuned {parts}: {figures}; {how}", *facts, found.weights, found.vectors)


def _passes(found: Tuned) -> str:
    return f"{found.passes:.3g} of {PASSES} passes" if found.ended else f"{PASSES} passes"


def _shortened(found: Tuned, minutes: float) -> str:
    if found.ended == OUT_OF_TIME:
        return f", all that {minutes:g} minutes allow (--tune-minutes)"
    return f", hurried by the limit of {minutes:g} minutes (--tune-minutes)" if found.hurried else ""


def _figure(errors: Errors) -> str:
    return f"{errors.mean():.4g} ±{standard_error(errors):.2g}"
