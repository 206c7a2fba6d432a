"""What a search asks of whoever measures plans on the real model. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors
from mpq.records.slopes import Slopes
from mpq.search.study import Measure


class Measurer(Protocol):
    """Measures whole plans on the real model."""

    def calibration(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each calibration sample."""

    def held_out(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each held-out sample."""


@runtime_checkable
class MeasurerInParts(Protocol):
    """A measurer that can be stopped before all samples are seen."""

    def calibration_parts(self, schemes: Mapping[str, Scheme]) -> Iterable[Errors]:
        """The error on each calibration sample, some samples at a time, always in the same order."""


@runtime_checkable
class MeasurerWithSlopes(Protocol):
    """A measurer that also tells what changes of a plan would change."""

    def slopes(self, schemes: Mapping[str, Scheme]) -> Slopes:
        """What each scheme of each layer would change in the calibration error; raises an MpqError where that cannot be told."""


def parts_of(measurer: Measurer) -> Measure:
    """How a study measures with it: in parts where it can."""
    if isinstance(measurer, MeasurerInParts):
        return measurer.calibration_parts
    return lambda schemes: [measurer.calibration(schemes)]
