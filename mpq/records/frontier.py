"""What a table can reach: the least predicted error at every size, uniform plans for comparison, and the value of one percent. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mpq.formats.scheme import Scheme


@dataclass(frozen=True)
class Point:
    """A plan as a point: its size and its predicted error.

    Args:
        name: "" for a point of the frontier, else what the plan is called.
        schemes: scheme by layer name.
        effective_bits: bits per weight over the layers.
        layer_bytes: bytes of the layers.
        file_bytes: bytes of the whole artifact.
        predicted: sum of the single-layer errors.
        gap: proven relative distance to the least error at this size; 0 for a proven optimum and for plans that are not solved for.
    """

    name: str
    schemes: dict[str, Scheme]
    effective_bits: float
    layer_bytes: int
    file_bytes: int
    predicted: float
    gap: float = 0.0


@dataclass(frozen=True)
class Change:
    """A layer whose scheme changes."""

    layer: str
    before: Scheme
    after: Scheme


@dataclass(frozen=True)
class Margin:
    """How a small change of the size changes the best plan: the optimum at both sizes."""

    before: Point
    after: Point

    @property
    def bytes(self) -> int:
        """Bytes of the second plan minus those of the first; negative if it is smaller."""
        return self.after.layer_bytes - self.before.layer_bytes

    @property
    def error(self) -> float:
        """Predicted error of the second plan minus that of the first; negative if it is better."""
        return self.after.predicted - self.before.predicted

    @property
    def changes(self) -> tuple[Change, ...]:
        """The layers that differ, in model order."""
        pairs = ((name, scheme, self.after.schemes[name]) for name, scheme in self.before.schemes.items())
        return tuple(Change(name, before, after) for name, before, after in pairs if before != after)


class Corner(NamedTuple):
    """A corner of the lower bound: bits per weight of the layers, and the predicted error there."""

    effective_bits: float
    predicted: float


@dataclass(frozen=True)
class Frontier:
    """Sizes against predicted errors.

    Args:
        points: optimal plans in order of rising size and falling error.
        bound: corners of the lower bound of all plans, in order of size: the staircase through the best plans of all sizes, or the lower
            convex hull of all plans.
        uniform: plans of one scheme.
        chosen: the plan at hand, if there is one and all its schemes were measured.
        more: what the next percent of bytes buys; None if it buys nothing, or without a plan.
        less: what giving up a percent costs; None if nothing that small exists, or without a plan.
    """

    points: tuple[Point, ...]
    bound: tuple[Corner, ...]
    uniform: tuple[Point, ...] = ()
    chosen: Point | None = None
    more: Margin | None = None
    less: Margin | None = None
