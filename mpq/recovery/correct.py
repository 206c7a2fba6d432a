"""Whether corrections of biases and batch-norm statistics go into an artifact: only if held-out samples say so, beyond noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from mpq.models.batches import Data
from mpq.models.forward import forward
from mpq.models.logits import outputs_are_logits
from mpq.models.metrics import Metric, metric_for
from mpq.recovery.bias_correction import corrections
from mpq.recovery.held_out import judged

NOTHING = "nothing to correct: no op adds a bias of the model or normalizes by statistics"


@dataclass(frozen=True)
class Correction:
    """What was decided.

    Args:
        reason: for people, with the figures.
        metric: of the errors.
        before: mean error on the held-out samples without corrections; None where nothing was measured.
        after: the same with them.
        tensors: the corrected tensors by name, where they are taken.
    """

    reason: str
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def taken(self) -> bool:
        """Whether the artifact holds corrected tensors."""
        return bool(self.tensors)


def correct(module: nn.Module, weights: Mapping[str, Tensor], calibration: Data, held_out: Data, metric: Metric) -> Correction:
    """Corrections for `weights` from the calibration samples, if the error on the held-out samples is smaller with them beyond noise.

    Args:
        module: the unquantized model; unchanged afterwards.
        weights: quantized weights by canonical name.
        calibration: samples that the corrections are found on.
        held_out: samples that decide.
        metric: what an error is.
    """
    found = corrections(module, weights, calibration)
    if not found:
        return Correction(NOTHING)
    decided = judged(module, weights, {**weights, **found}, held_out, metric)
    facts = metric.name, decided.before, decided.after
    if not decided.better:
        return Correction(f"biases and statistics stay as they are: {decided.figures}, no gain beyond noise", *facts)
    return Correction(f"{len(found)} biases and statistics corrected: {decided.figures}", *facts, found)


def metric_on(module: nn.Module, data: Data, name: str | None) -> Metric:
    """The metric of an analysis; without a name the one that fits the model's output."""
    batch = data.batches[0]
    return metric_for(outputs_are_logits(module, forward(module, batch), batch).kind, name)
