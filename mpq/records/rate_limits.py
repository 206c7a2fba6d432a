"""How far each layer is from the theoretical limit; also as `mpq show --limit --json` prints it, which the report reads. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from mpq.errors import FormatError
from mpq.reading.documents import read_json
from mpq.reading.fields import Name, Positive, Text
from mpq.reading.validate import validated
from mpq.records.evaluation_file import newest_beside

ENDING = ".limit.json"
_REMEDY = "write it again with `mpq show PLAN --limit --json > NAME.limit.json`"


@dataclass(frozen=True)
class LayerLimit:
    """A layer's rate and the least rate at which any code could have the same output error.

    Args:
        layer: its name.
        weights: number of weights.
        bits: stored bits per weight.
        least: the least bits per weight; None if it is not known.
        reason: why it is not known.
    """

    layer: str
    weights: int
    bits: float
    least: float | None
    reason: str = ""

    @property
    def gap(self) -> float | None:
        """Bits per weight above the limit."""
        return None if self.least is None else self.bits - self.least


def total_limit(limits: Iterable[LayerLimit]) -> LayerLimit | None:
    """All layers with a known limit as one; None if there is none."""
    known = [each for each in limits if each.least is not None]
    weights = sum(each.weights for each in known)
    if not known:
        return None
    bits = sum(each.bits * each.weights for each in known) / weights
    return LayerLimit("total", weights, bits, sum((each.least or 0.0) * each.weights for each in known) / weights)


class LimitFacts(Struct):
    """The limit of one layer."""

    layer: Name
    limit_bits: Positive | None = None


class LimitFile(Struct):
    """The limits of a plan."""

    assignment: Text
    layers: list[LimitFacts]


def read_limits(path: Path) -> tuple[str, dict[str, float]]:
    """The digest of the schemes, and the least bits per weight by layer, where known.

    Raises:
        FormatError: if the file is missing, or is none that `mpq show --limit --json` printed.
    """
    file = validated(read_json(path, error=FormatError, absent=_REMEDY, remedy=_REMEDY), LimitFile)
    return file.assignment, {each.layer: each.limit_bits for each in file.layers if each.limit_bits is not None}


def limits_beside(folder: Path, assignment: str) -> dict[str, float] | None:
    """The limits of these schemes among `*.limit.json` in a folder, the newest; None if there are none."""
    return newest_beside(folder, ENDING, assignment, read_limits)
