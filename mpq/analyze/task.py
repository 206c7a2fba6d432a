"""The output of `prepare`, which a method works on."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.data.dataset import Data
from mpq.models.running.metrics import Metric
from mpq.records.sensitivity_header import SensitivityHeader


@dataclass(frozen=True)
class Prepared:
    """A prepared analysis: the header of the file, and what measuring needs in addition.

    Args:
        header: the header of the file.
        calibration: all samples to work with.
        first: the calibration samples before any were added; statistics are computed on these.
        metric: measures the error.
    """

    header: SensitivityHeader
    calibration: Data
    first: Data
    metric: Metric
