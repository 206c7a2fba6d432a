"""A settled analysis: what `prepare` hands to a method."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.models.batches import Data
from mpq.models.metrics import Metric
from mpq.records.sensitivity import SensitivityHeader


@dataclass(frozen=True)
class Prepared:
    """A settled analysis: what the file's header says, and what measuring needs beside it."""

    header: SensitivityHeader
    calibration: Data
    metric: Metric
