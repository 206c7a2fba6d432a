"""Values that appear twice in a sensitivity file: equal ones are dropped, different ones are refused. No torch.

Each line names its first sample, so repeated samples can be recognized. Two analyses that write one file
at the same time (which a lock prevents, where the file system has locks) leave every value twice; joined, they would count as twice as
many samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpq.errors import FormatError

Known = np.ndarray[tuple[int], np.dtype[np.float64]]


def new_figures(record: Mapping[str, Any], errors: Known, products: Known) -> tuple[list[float | None], list[float | None]]:
    """The new errors and products of one line.

    Args:
        record: of a layer and a scheme; without `first` it continues where the known ones end.
        errors: known errors of this layer and scheme, from sample 0 on, as they were measured.
        products: its known products, of which each sample has the same number.

    Raises:
        FormatError: if samples are missing between the known ones and these, or a known sample has a different value here.
    """
    found, factors = list(record["errors"]), list(record.get("products", ()))
    first = int(record.get("first", len(errors)))
    twice = min(len(errors) - first, len(found))
    if first < 0 or twice < 0:
        raise FormatError(f"{_pair(record)}: sample {len(errors)} is missing, the next line begins with {first}")
    each = len(factors) / max(1, len(found))  # products of a sample; a fraction where a batch that cannot be cut has one for all of it
    begin, end, cut = (round(each * samples) for samples in (first, first + twice, twice))
    _refuse_others(record, "errors", errors[first : first + twice], found[:twice], first)
    _refuse_others(record, "products", products[begin:end], factors[:cut], first)
    return found[twice:], factors[cut:]


def _refuse_others(record: Mapping[str, Any], name: str, known: Known, found: Sequence[float | None], first: int) -> None:
    values = np.array([math.nan if value is None else value for value in found], dtype=np.float64)
    if len(known) == len(values) and np.array_equal(known, values, equal_nan=True):
        return
    differing = [int(place) for place in range(min(len(known), len(values))) if not _same(known[place], values[place])]
    place = differing[0] if differing else 0
    twice = f"{_shown(known, place)}, then {_shown(values, place)}"
    raise FormatError(
        f"{_pair(record)}: {name} from sample {first} on appear twice with different values ({twice}), as if two analyses had written to "
        "the file"
    )


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _shown(values: Known, place: int) -> str:
    return f"{values[place]:g}" if place < len(values) else "none"


def _pair(record: Mapping[str, Any]) -> str:
    return f"layer '{record['layer']}', scheme {record['scheme']}"
