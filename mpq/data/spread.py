"""Some of the samples, spread evenly over all of them, because the first ones of a file are often alike.

Samples are chosen in the order of the multiples of the golden ratio, modulo one (a Kronecker sequence): the gaps between the chosen ones
are at most 2.4 times as wide as on average. A larger number adds samples to those of a smaller one, and a repeating order, such as that of
classes in turn, makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mpq.data.batch import Batch

_GOLDEN = (math.sqrt(5) - 1) / 2


def spread_order(count: int, most: int | None = None) -> list[int]:
    """The first `most` of `count` positions, or all of them, in the order in which they are chosen."""
    wanted, found, step = count if most is None else min(most, count), dict[int, None](), 0
    while len(found) < wanted:
        found[int(step * _GOLDEN % 1 * count)] = None
        step += 1
    return list(found)


def spread_ranks(count: int, most: int | None = None) -> tuple[list[int], tuple[int, ...]]:
    """The first `most` of `count` positions, ascending, and when each of them was chosen."""
    order = spread_order(count, most)
    rank = {place: number for number, place in enumerate(order)}
    places = sorted(order)
    return places, tuple(rank[place] for place in places)


def samples_at(batches: Sequence[Batch], places: Sequence[int]) -> list[Batch]:
    """The samples at ascending `places`, counted over all batches; each piece has samples of one batch."""
    pieces, start, wanted = [], 0, torch.as_tensor(places, dtype=torch.int64)
    for batch in batches:
        inside = wanted[(wanted >= start) & (wanted < start + batch.size)]
        if len(inside):
            pieces.append(batch.select(inside - start))
        start += batch.size
    return pieces
