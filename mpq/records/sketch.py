"""A sketch of a tensor's values in less than a kilobyte: a histogram of magnitudes, the range, and how many are not finite. No torch.

An octave has two bins, cut at 1, 1.5, 2, 3, 4 and so on: the exponent and the first bit of the fraction of a float32 number are its bin, so
that counting is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from mpq.reading.documents import Document
from mpq.reading.fields import Size

STEPS = 64
"""Bins of magnitudes of one sign, two to an octave."""
BINS = 2 * STEPS + 1
_PLACES = BINS + 1  # the last one is for values that are not finite
_LOWEST = -16  # log2 of the smallest magnitude that has a bin; smaller ones count as zero
_CODES = 1024  # sign, exponent and first bit of the fraction
_BIAS = 127  # of exponents
_STRANGE = 2 * 255  # the code of infinity and NaN, without the sign


class SketchFacts(Struct, omit_defaults=True):
    """A sketch as JSON; bins before the first and after the last value are left out."""

    first: Annotated[int, Meta(ge=0, lt=BINS)]
    counts: Annotated[list[Size], Meta(max_length=BINS)]
    not_finite: Size
    samples: Size
    minimum: float | None = None
    maximum: float | None = None


@dataclass(eq=False)
class Sketch:
    """Counts of the values of one tensor over many calls.

    Args:
        counts: values per bin, int64: negative ones from large to small magnitudes, zeros, positive ones from small to large.
        minimum: smallest finite value; infinity before the first.
        maximum: largest finite value; minus infinity before the first.
        not_finite: number of values that are NaN or infinite.
        samples: number of samples that the values belong to.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    minimum: float = math.inf
    maximum: float = -math.inf
    not_finite: int = 0
    samples: int = 0

    def add(self, values: NDArray[np.float32], *, samples: int = 1) -> None:
        """Count the values of a flat array, which belong to so many samples. Memory use is constant."""
        add_to([self], [values], samples=samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_dict() == other.to_dict()

    @property
    def values(self) -> int:
        """Number of finite values that were counted."""
        return int(self.counts.sum())

    def merged(self, other: Sketch) -> Sketch:
        """The sketch of the values of both."""
        low, high = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        return Sketch(self.counts + other.counts, low, high, self.not_finite + other.not_finite, self.samples + other.samples)

    def beyond(self, other: Sketch) -> float:
        """The share of values in bins outside the range of `other`: the values that a range calibrated on `other` clips."""
        seen = np.flatnonzero(other.counts)
        if not len(seen) or not self.values:
            return 0.0
        return 1.0 - int(self.counts[seen[0] : seen[-1] + 1].sum()) / self.values

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; runs of empty bins at both ends are left out."""
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        bounds = {"minimum": self.minimum, "maximum": self.maximum} if len(used) else {}
        return {
            "first": first,
            "counts": self.counts[first:last].tolist(),
            **bounds,
            "not_finite": self.not_finite,
            "samples": self.samples,
        }


def add_to(sketches: Sequence[Sketch], values: Sequence[NDArray[np.float32]], *, samples: int = 1) -> None:
    """Count a flat array of values in each sketch, all in one pass; an array may be empty."""
    lengths = np.array([len(each) for each in values])
    joined = np.concatenate(values)
    places = _BIN_OF[joined.view(np.uint32) >> 22] + np.repeat(np.arange(0, len(lengths) * _PLACES, _PLACES), lengths)
    found = np.bincount(places, minlength=len(lengths) * _PLACES).reshape(len(lengths), _PLACES)
    for sketch, own, counts in zip(sketches, values, found, strict=True):
        strange = int(counts[BINS])
        finite = own[np.isfinite(own)] if strange else own
        sketch.samples += samples
        sketch.not_finite += strange
        if len(finite):
            sketch.minimum, sketch.maximum = min(sketch.minimum, float(finite.min())), max(sketch.maximum, float(finite.max()))
            sketch.counts += counts[:BINS]


def sketch_in(facts: SketchFacts) -> Sketch:
    """The inverse of `to_dict`, for facts that `check_sketches` accepts."""
    counts = np.zeros(BINS, dtype=np.int64)
    counts[facts.first : facts.first + len(facts.counts)] = facts.counts
    minimum = math.inf if facts.minimum is None else facts.minimum
    maximum = -math.inf if facts.maximum is None else facts.maximum
    return Sketch(counts, minimum, maximum, facts.not_finite, facts.samples)


def check_sketches(document: Document, tensors: Mapping[str, SketchFacts], *, remedy: str) -> None:
    """Refuse sketches under the key `tensors` that have too many bins.

    Raises:
        MpqError: of the document's error type, naming the first one.
    """
    for name, sketch in tensors.items():
        if sketch.first + len(sketch.counts) > BINS:
            raise document.refuse(f"its sketch has more than {BINS} bins; {remedy}", "tensors", name)


def _bin_of_codes() -> NDArray[np.intp]:
    """The bin of each code of a float32 number; one more for those that are not finite."""
    codes = np.arange(_CODES)
    magnitude = codes % (_CODES // 2)
    place = np.clip(magnitude - 2 * (_BIAS + _LOWEST) + 1, 0, STEPS)
    found: NDArray[np.intp] = np.where(magnitude >= _STRANGE, BINS, STEPS + np.where(codes < _CODES // 2, place, -place))
    return found


_BIN_OF = _bin_of_codes()
