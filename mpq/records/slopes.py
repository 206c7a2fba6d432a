"""Slopes: how a plan's error would change if one layer took another scheme, to first and to second order. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors

Pair = tuple[str, Scheme]


@dataclass(frozen=True)
class Slopes:
    """Figures around one plan, by layer and scheme, in the metric's unit.

    Args:
        first: the gradient of the plan's error times the change of the layer's weight, one figure per calibration sample. The other
            layers' present errors are in it. A layer that no gradient reaches is missing.
        second: half of the change's quadratic form under the curvature there, one figure per sample and draw, never negative.
        cost: what finding them took, in passes over the calibration samples; a backward pass counts as two.
    """

    first: Mapping[Pair, Errors]
    second: Mapping[Pair, Errors]
    cost: float
