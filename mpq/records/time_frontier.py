"""What a profile says of a model's layers, and the least error of weights at every time. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mpq.formats.scheme import Scheme
from mpq.records.latency import LatencyFacts


class Reached(NamedTuple):
    """A plan: milliseconds of a call, and the predicted error of its weights."""

    milliseconds: float
    error: float


@dataclass(frozen=True)
class TimeFrontier:
    """One profile.

    Args:
        name: of its file.
        facts: its first line.
        times: milliseconds by layer and scheme.
        corners: of the lower convex hull of all plans, the fastest first.
        plan: the plan that is reported; None without one, or if a layer has a scheme that was not timed.
    """

    name: str
    facts: LatencyFacts
    times: Mapping[tuple[str, Scheme], float]
    corners: tuple[Reached, ...]
    plan: Reached | None = None
