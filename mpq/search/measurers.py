"""Interfaces of the objects that measure plans on the real model. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from mpq.formats.scheme import Scheme
from mpq.records.activations import Groups
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
        """The error on each calibration sample, a few samples at a time, always in the same order."""


@runtime_checkable
class MeasurerWithSlopes(Protocol):
    """A measurer that also estimates the effect of changes of a plan."""

    def slopes(self, schemes: Mapping[str, Scheme]) -> Slopes:
        """How each scheme of each layer would change the calibration error; raises an MpqError if that cannot be computed."""


@runtime_checkable
class MeasurerWithActivations(Protocol):
    """A measurer that can round tensors between layers."""

    def held_out_rounded(self, schemes: Mapping[str, Scheme], groups: Groups) -> Errors:
        """The error on each held-out sample with these tensors rounded."""


def parts_of(measurer: Measurer) -> Measure:
    """How a study measures with it: in parts if possible."""
    if isinstance(measurer, MeasurerInParts):
        return measurer.calibration_parts
    return lambda schemes: [measurer.calibration(schemes)]
