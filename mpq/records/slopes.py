"""Slopes: how a plan's error would change if one layer used another scheme, to first and second order. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors

Pair = tuple[str, Scheme]


@dataclass(frozen=True)
class Slopes:
    """Error changes around one plan, by layer and scheme, in the metric's unit.

    Args:
        first: the gradient of the plan's error times the change of the layer's weight, one value per calibration sample. The other
            layers' current errors are included. A layer that no gradient reaches is missing.
        second: half of the change's quadratic form under the curvature there, one value per sample and draw, never negative.
        cost: of computing them, in passes over the calibration samples; a backward pass counts as two.
    """

    first: Mapping[Pair, Errors]
    second: Mapping[Pair, Errors]
    cost: float
