"""The samples that recovery works with: the calibration samples, and for language models text of their own."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mpq.data.dataset import Data
from mpq.models.inputs.own_text import asked_text, missing_windows, with_own_text
from mpq.records.layer import Layer
from mpq.recovery.base import Limits
from mpq.recovery.cost import forward_operations

_SHARE = 0.25  # of the work allowed for one step, for writing


def recovery_samples(
    module: nn.Module, layers: Iterable[Layer], calibration: Data, limits: Limits, *, windows: int | None, seed: int
) -> tuple[Data, str | None]:
    """The samples, and a line for people where the model wrote some of them.

    Args:
        module: the unquantized model.
        layers: the quantized layers.
        calibration: the samples of the analysis.
        limits: of one step.
        windows: that a language model is to write; None writes what is missing, as far as a quarter of the work allows.
        seed: of the text.

    Raises:
        UsageError: if the number is negative, or the model cannot write.
    """
    if windows is not None:
        wanted, found = windows, asked_text(module, calibration, windows, seed=seed)
    else:
        wanted = missing_windows(calibration)
        wanted = min(wanted, int(_SHARE * limits.work / forward_operations(module, layers, calibration))) if wanted else 0
        found = with_own_text(module, calibration, wanted, seed=seed) or calibration
    if found is calibration:
        return calibration, None
    return found, f"recovery uses the {calibration.samples} calibration windows and {wanted} more that the model wrote itself"
