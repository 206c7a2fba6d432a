"""Ranks: several processes that do one analysis together, each with the same model and data. No torch at the top.

All ranks take the same steps. Work that can be divided is a list of units: each rank claims the next unit that nobody has, and all of them
get all results, in the order of the units. So everything that is summed or written has one order, whatever their number. Rank 0 writes
the files. Where a rank that rank 0 started dies, rank 0 does its unit; where rank 0 dies, the others end.

The results are small (figures, not gradients), so they go through a board of claims and values: a folder on one machine, or the store of
`torch.distributed` under torchrun.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")
_POLL = 0.01  # seconds
_JOINED = "joined"


def float_bytes(value: float) -> bytes:
    """A float as bytes that `float` reads exactly, also where it is not finite, which JSON has no number for."""
    return repr(value).encode()


class Board(Protocol):
    """Values by key, which all ranks see."""

    def claim(self, key: str, rank: int) -> bool:
        """Whether `rank` is the first to claim `key`."""

    def claimer(self, key: str) -> int | None:
        """Who claimed `key`; None if nobody did, or the board does not know."""

    def put(self, key: str, value: bytes) -> None:
        """Show a value, whole or not at all."""

    def get(self, key: str) -> bytes | None:
        """The value, if it is there."""


class FolderBoard:
    """A board in a folder: a claim is a file that only one can make, a value is a file that appears whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, key: str, rank: int) -> bool:
        """Whether `rank` is the first to claim `key`."""
        own = self._folder / f"rank{rank}"
        if not own.exists():
            own.write_text(str(rank))
        try:
            (self._folder / f"{key}.claim").hardlink_to(own)  # appears with its content, also where this process is killed now
        except FileExistsError:
            return False
        return True

    def claimer(self, key: str) -> int | None:
        """Who claimed `key`; None if nobody did."""
        with suppress(OSError, ValueError):
            return int((self._folder / f"{key}.claim").read_text())
        return None

    def put(self, key: str, value: bytes) -> None:
        """Show a value, whole or not at all."""
        partial = self._folder / f"{key}.{os.getpid()}.partial"
        partial.write_bytes(value)
        partial.replace(self._folder / f"{key}.value")

    def get(self, key: str) -> bytes | None:
        """The value, if it is there."""
        with suppress(FileNotFoundError):
            return (self._folder / f"{key}.value").read_bytes()
        return None


class StoreBoard:
    """A board in a store of `torch.distributed`."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def claim(self, key: str, rank: int) -> bool:
        """Whether this is the first claim of `key`."""
        return bool(self._store.add(f"mpq/{key}/claims", 1) == 1)

    def claimer(self, key: str) -> int | None:
        """Nobody knows: torchrun ends all ranks where one dies."""
        return None

    def put(self, key: str, value: bytes) -> None:
        """Show a value."""
        self._store.set(f"mpq/{key}", value)

    def get(self, key: str) -> bytes | None:
        """The value, if it is there."""
        return bytes(self._store.get(f"mpq/{key}")) if self._store.check([f"mpq/{key}"]) else None


class Ranks(ABC):
    """The processes of one analysis, seen from one of them."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    @abstractmethod
    def each(
        self, count: int, work: Callable[[int], T], *, pack: Callable[[T], bytes] | None = None, unpack: Callable[[bytes], T] | None = None
    ) -> Iterator[T]:
        """The results of units 0 to `count` - 1, in order; each is done by one rank.

        Args:
            count: of units, the same for all ranks.
            work: does one unit; what it gives must not depend on the rank.
            pack: a result as bytes; None for JSON.
            unpack: the inverse.
        """

    @abstractmethod
    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What `make` gives in rank 0, for all ranks."""

    @abstractmethod
    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of values by name over all ranks that have begun and live, in rank 0; in the others their own."""


class Alone(Ranks):
    """One process."""

    rank, size = 0, 1

    def each(
        self, count: int, work: Callable[[int], T], *, pack: Callable[[T], bytes] | None = None, unpack: Callable[[bytes], T] | None = None
    ) -> Iterator[T]:
        """The results, one after the other."""
        return map(work, range(count))

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What `make` gives."""
        return make()

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values."""
        return dict(values)


class LostError(Exception):
    """Rank 0 has ended, so this rank has nothing to do."""


class Several(Ranks):
    """One of several processes.

    Args:
        board: that all of them see.
        rank: of this process, from 0.
        size: number of processes.
        lives: whether a rank lives. Rank 0 asks it of all others, and these of rank 0.
    """

    def __init__(self, board: Board, rank: int, size: int, lives: Callable[[int], bool] = lambda _: True) -> None:
        self.rank, self.size = rank, size
        self._board, self._lives = board, lives
        self._steps = 0

    def each(
        self, count: int, work: Callable[[int], T], *, pack: Callable[[T], bytes] | None = None, unpack: Callable[[bytes], T] | None = None
    ) -> Iterator[T]:
        """The results, in order; while one is awaited, other units are done."""
        step, next_unit = self._step(), 0
        packed, unpacked = pack or msgspec.json.encode, unpack or msgspec.json.decode
        for unit in range(count):
            while (found := self._board.get(f"{step}-{unit}")) is None:
                while next_unit < count and not self._board.claim(f"{step}-{next_unit}", self.rank):
                    next_unit += 1
                if next_unit < count:
                    self._board.put(f"{step}-{next_unit}", packed(work(next_unit)))
                    next_unit += 1
                elif self.leads and self._is_lost(f"{step}-{unit}"):
                    self._board.put(f"{step}-{unit}", packed(work(unit)))
                else:
                    self._wait()
            yield unpacked(found)

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What `make` gives in rank 0; the others wait for it."""
        step = self._step()
        if self.leads:
            made = make()
            self._board.put(step, made)
            return made
        while (found := self._board.get(step)) is None:
            self._wait()
        return found

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums in rank 0, in the order of the ranks."""
        step, total = self._step(), dict(values)
        if not self.leads:
            self._board.put(f"{step}-{self.rank}", msgspec.json.encode(total))
            return total
        joined = [rank for rank in range(1, self.size) if self._board.get(f"{_JOINED}-{rank}") is not None]
        for rank in joined:
            while (found := self._board.get(f"{step}-{rank}")) is None and self._lives(rank):
                time.sleep(_POLL)
            for name, value in (msgspec.json.decode(found) if found is not None else {}).items():
                total[name] = total.get(name, 0.0) + value
        return total

    def _step(self) -> str:
        if not self._steps:
            self._board.put(f"{_JOINED}-{self.rank}", b"")
        self._steps += 1
        return str(self._steps)

    def _is_lost(self, key: str) -> bool:
        """Whether the rank that claimed a unit has died before it was done."""
        owner = self._board.claimer(key)
        return owner is not None and owner != self.rank and not self._lives(owner) and self._board.get(key) is None

    def _wait(self) -> None:
        if not self.leads and not self._lives(0):
            raise LostError
        time.sleep(_POLL)
