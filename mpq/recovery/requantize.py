"""Whether an artifact holds codes that were chosen one layer after another: only if held-out samples say so, beyond noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mpq.config import TUNE_MINUTES
from mpq.errors import ApplyError, MpqError
from mpq.models.batches import Data
from mpq.models.metrics import Metric, RelativeMSE
from mpq.models.variants import Variants, as_parameters
from mpq.recovery.held_out import judged
from mpq.recovery.sequential import Progress, in_sequence
from mpq.recovery.tuning import GRACE
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
    minutes: float = TUNE_MINUTES,
    on_progress: Progress | None = None,
) -> Requantization:
    """Codes chosen one layer after another, if the error on the held-out samples is smaller with them beyond noise.

    Where it is neither smaller nor larger beyond noise, the relative squared error of the outputs decides: a classifier that is sure of
    all its samples, as of those that it was trained on, has a divergence of nearly zero on all but a few of them, which tell nothing.

    Args:
        variants: of the unquantized model, which is unchanged afterwards.
        weights: each layer quantized by itself, by its name.
        data: calibration samples, and those that decide.
        metric: what an error is.
        minutes: time allowed; nothing is changed where that is not enough.
        on_progress: told after each set of layers.
    """
    calibration, held_out = data
    began = time.monotonic()

    def watched(done: int, total: int, layer: str) -> None:
        spent = (time.monotonic() - began) / 60
        behind = done > 1 and spent > GRACE * minutes and spent * total > done * minutes
        if done < total and (spent > minutes or behind):
            raise ApplyError(
                f"{done} of {total} sets of layers took {spent:.2g} minutes, and {minutes:g} are allowed for all (--tune-minutes)"
            )
        if on_progress is not None:
            on_progress(done, total, layer)

    try:
        found = in_sequence(variants, weights, calibration, on_progress=watched)
    except MpqError as problem:
        return Requantization(f"not sequential: {problem}")
    seconds = time.monotonic() - began
    if not found:
        return Requantization("not sequential: no layer follows another one by products that are understood", seconds=seconds)
    before, after = (as_parameters(some, variants.layers.values()) for some in (weights, {**weights, **found}))
    by_metric = judged(variants.module, before, after, held_out, metric)
    figures, better = by_metric.figures, by_metric.better
    if not better and not by_metric.worse:
        by_outputs = judged(variants.module, before, after, held_out, RelativeMSE())
        if by_outputs.better:
            figures, better = f"{by_outputs.figures}; {figures}, no difference beyond noise", True
    facts = metric.name, by_metric.before, by_metric.after, seconds
    if not better:
        return Requantization(f"not sequential: {figures}; {seconds:.0f} s, no gain beyond noise", *facts)
    return Requantization(f"{len(found)} layers quantized for what comes before them: {figures}; {seconds:.0f} s", *facts, found)
