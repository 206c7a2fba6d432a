"""What happens to quantized weights before the artifact is whole: corrections, then tuning, each kept only if held-out samples say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mpq.apply.correct import NOTHING, Correction, correct
from mpq.apply.tune import Tuning, tuning
from mpq.config import TUNE_MINUTES
from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.models.tuning import Progress
from mpq.models.variants import as_parameter
from mpq.records.layer import Layer
from mpq.tensors.quantized import QuantizedWeight


@dataclass(frozen=True)
class Amended:
    """What was decided."""

    correction: Correction
    tuning: Tuning

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Other values for tensors that no scheme changes, by name in the state dict."""
        return {**self.correction.tensors, **self.tuning.vectors}


def untouched(*, asked: bool, judged: bool, tune: bool) -> Amended:
    """The decision before anything was measured, with its reasons.

    Args:
        asked: whether corrections were asked for.
        judged: whether there is data to judge by.
        tune: whether tuning was asked for.
    """
    why = "no data to judge by" if asked else "as asked"
    correction = Correction(NOTHING if asked and judged else f"biases and statistics stay as they are: {why}")
    return Amended(correction, Tuning(f"not tuned: {why if tune else 'as asked'}"))


def amend(
    module: nn.Module,
    layers: Sequence[Layer],
    weights: Mapping[str, QuantizedWeight],
    data: tuple[Data, Data],
    metric: Metric,
    *,
    tune: bool,
    seed: int,
    minutes: float = TUNE_MINUTES,
    on_tuning: Progress | None = None,
) -> Amended:
    """Correct biases and batch-norm statistics, then tune, starting from what was corrected.

    Args:
        module: the unquantized model; unchanged afterwards.
        layers: the quantized layers.
        weights: as the quantizer left them, by layer name.
        data: the samples to work with, and those that decide.
        metric: what an error is.
        tune: whether to tune at all.
        seed: of the order of samples in tuning.
        minutes: time allowed for tuning.
        on_tuning: told after each step of tuning.
    """
    values = {layer.parameters[0]: as_parameter(weights[layer.name], layer) for layer in layers}
    correction = correct(module, values, *data, metric)
    del values
    if not tune:
        return Amended(correction, untouched(asked=True, judged=True, tune=False).tuning)
    tuned = tuning(module, layers, weights, correction.tensors, data, metric, seed=seed, minutes=minutes, on_progress=on_tuning)
    return Amended(correction, tuned)
