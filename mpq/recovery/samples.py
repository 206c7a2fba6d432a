"""The samples that recovery works with: the calibration samples, and for language models text of their own."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mpq.data.dataset import Data
from mpq.errors import UsageError
from mpq.models.inputs.own_text import missing_windows, with_own_text
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
    if windows is not None and windows < 0:
        raise UsageError(f"{windows} is not a number of windows: give 0 (none) or more")
    wanted = missing_windows(calibration) if windows is None else windows
    if wanted and windows is None:
        wanted = min(wanted, int(_SHARE * limits.work / forward_operations(module, layers, calibration)))
    found = with_own_text(module, calibration, wanted, seed=seed) if wanted else None
    if found is None and windows:
        raise UsageError(
            f"--own-text {windows} needs a language model that decodes with a cache, and calibration windows of tokens of one length "
            "without padding: leave it out"
        )
    if found is None:
        return calibration, None
    return found, f"recovery uses the {calibration.samples} calibration windows and {wanted} more that the model wrote itself"
