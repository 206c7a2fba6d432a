"""A settled analysis: what `prepare` hands to a method."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.data.dataset import Data
from mpq.models.running.metrics import Metric
from mpq.records.sensitivity_header import SensitivityHeader


@dataclass(frozen=True)
class Prepared:
    """A settled analysis: what the file's header says, and what measuring needs beside it.

    Args:
        header: of the file.
        calibration: all samples to work with.
        first: those before any were added to the analysis; statistics are of these.
        metric: what an error is.
    """

    header: SensitivityHeader
    calibration: Data
    first: Data
    metric: Metric
