"""Whether an artifact holds codes that were chosen one layer after another: only if held-out samples say so, beyond noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mpq.errors import MpqError
from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.models.reference import Reference
from mpq.models.sequence import Progress, in_sequence
from mpq.models.variants import Variants, as_parameter
from mpq.records.paired import compare
from mpq.tensors.quantized import QuantizedWeight


@dataclass(frozen=True)
class Requantization:
    """What was decided.

    Args:
        reason: for people, with the figures.
        metric: of the errors.
        before: mean error on the held-out samples with each layer quantized by itself; None where nothing was measured.
        after: the same with each layer quantized for the inputs that the quantized layers before it give.
        seconds: that it took.
        weights: by layer name, where they are taken.
    """

    reason: str
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    seconds: float | None = None
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)

    @property
    def taken(self) -> bool:
        """Whether the artifact holds such codes."""
        return bool(self.weights)


def requantize(
    variants: Variants,
    weights: Mapping[str, QuantizedWeight],
    data: tuple[Data, Data],
    metric: Metric,
    *,
    on_progress: Progress | None = None,
) -> Requantization:
    """Codes chosen one layer after another, if the error on the held-out samples is smaller with them beyond noise.

    Args:
        variants: of the unquantized model, which is unchanged afterwards.
        weights: each layer quantized by itself, by its name.
        data: calibration samples, and those that decide.
        metric: what an error is.
        on_progress: told after each set of layers.
    """
    calibration, held_out = data
    began = time.monotonic()
    try:
        found = in_sequence(variants, weights, calibration, on_progress=on_progress)
    except MpqError as problem:
        return Requantization(f"not sequential: {problem}")
    seconds = time.monotonic() - began
    if not found:
        return Requantization("not sequential: no layer follows another one by products that are understood", seconds=seconds)
    reference, errors = Reference(variants.module, held_out, metric), []
    for some in (weights, {**weights, **found}):
        values = {layer.parameters[0]: as_parameter(some[name], layer) for name, layer in variants.layers.items()}
        errors.append(reference.errors(values).numpy())
    before, after = (float(one.mean()) for one in errors)
    figures = f"{metric.name} on {held_out.samples} held-out samples {before:.4g} without, {after:.4g} with; {seconds:.0f} s"
    if not compare(errors[1], errors[0]).better:
        return Requantization(f"not sequential: {figures}, no gain beyond noise", metric.name, before, after, seconds)
    return Requantization(
        f"{len(found)} layers quantized for what comes before them: {figures}", metric.name, before, after, seconds, found
    )
