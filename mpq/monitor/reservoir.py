"""A uniform random choice of everything that was added, of fixed size."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

T = TypeVar("T")


class Reservoir(Generic[T]):
    """Keeps up to `size` of the added items, each with the same chance; memory use is constant.

    Args:
        size: the most items that are kept.
        draw: decides which.
    """

    def __init__(self, size: int, draw: random.Random) -> None:
        self.items: list[T] = []
        self._size, self._draw, self._added = size, draw, 0

    def next_place(self) -> int | None:
        """Where the next item goes; None if it is not kept. Call it once for each item, then `put`."""
        self._added += 1
        if len(self.items) < self._size:
            return len(self.items)
        place = self._draw.randrange(self._added)
        return place if place < self._size else None

    def put(self, place: int, item: T) -> None:
        """Keep an item at a place that `next_place` gave."""
        self.items[place : place + 1] = [item]

    def clear(self) -> None:
        """Start again."""
        self.items, self._added = [], 0
