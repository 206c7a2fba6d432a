"""What happens to quantized weights before the artifact is whole, each step kept only if held-out samples say so.

Layers are quantized once more, one after another; then biases and batch-norm statistics are corrected; then everything is tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from mpq.config import TUNE_MINUTES
from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.models.variants import Variants, as_parameters
from mpq.recovery.correct import NOTHING, Correction, correct
from mpq.recovery.requantize import Requantization, requantize
from mpq.recovery.tune import Tuning, tuning
from mpq.recovery.tuning import Progress
from mpq.tensors.quantized import QuantizedWeight


@dataclass(frozen=True)
class Amended:
    """What was decided."""

    requantization: Requantization
    correction: Correction
    tuning: Tuning

    @property
    def weights(self) -> dict[str, QuantizedWeight]:
        """Other codes and scales, by layer name."""
        return {**self.requantization.weights, **self.tuning.weights}

    @property
    def decisions(self) -> tuple[Requantization, Correction, Tuning]:
        """All of them, in the order of the steps."""
        return self.requantization, self.correction, self.tuning

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Other values for tensors that no scheme changes, by name in the state dict."""
        return {**self.correction.tensors, **self.tuning.vectors}


@dataclass(frozen=True)
class Wanted:
    """What is to be tried.

    Args:
        sequential: quantizing one layer after another.
        tune: tuning.
        minutes: time allowed for each of the two.
    """

    sequential: bool = True
    tune: bool = True
    minutes: float = TUNE_MINUTES


def untouched(wanted: Wanted, *, asked: bool, judged: bool) -> Amended:
    """The decision before anything was measured, with its reasons.

    Args:
        wanted: what is to be tried beside corrections.
        asked: whether corrections were asked for.
        judged: whether there is data to judge by.
    """
    why = "no data to judge by" if asked else "as asked"
    correction = Correction(NOTHING if asked and judged else f"biases and statistics stay as they are: {why}")
    sequence, tuned = (why if tried else "as asked" for tried in (wanted.sequential, wanted.tune))
    return Amended(Requantization(f"not sequential: {sequence}"), correction, Tuning(f"not tuned: {tuned}"))


def amend(
    variants: Variants,
    weights: Mapping[str, QuantizedWeight],
    data: tuple[Data, Data],
    metric: Metric,
    wanted: Wanted,
    *,
    seed: int,
    on_sequence: Progress | None = None,
    on_tuning: Progress | None = None,
) -> Amended:
    """Quantize one layer after another, correct biases and batch-norm statistics, then tune, each from what was kept before.

    Args:
        variants: of the unquantized model, which is unchanged afterwards.
        weights: as the quantizer left them, by layer name.
        data: the samples to work with, and those that decide.
        metric: what an error is.
        wanted: what is to be tried beside corrections.
        seed: of the order of samples in tuning.
        on_sequence: told after each set of layers.
        on_tuning: told after each step of tuning.
    """
    module, layers = variants.module, list(variants.layers.values())
    amended = untouched(wanted, asked=True, judged=True)
    if wanted.sequential:
        amended = replace(
            amended, requantization=requantize(variants, weights, data, metric, minutes=wanted.minutes, on_progress=on_sequence)
        )
    weights = {**weights, **amended.weights}
    amended = replace(amended, correction=correct(module, as_parameters(weights, layers), *data, metric))
    if not wanted.tune:
        return amended
    corrected, minutes = amended.correction.tensors, wanted.minutes
    return replace(
        amended, tuning=tuning(module, layers, weights, corrected, data, metric, seed=seed, minutes=minutes, on_progress=on_tuning)
    )
