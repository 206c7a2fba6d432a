"""Starts the ranks of an analysis on one machine, or joins those that torchrun has started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

from mpq.models.running.ranks import FolderBoard, LostError, Ranks, Several, StoreBoard

Follow = Callable[[Any, Ranks], None]
"""What the other ranks do: called with what they were given, and with themselves."""


@contextmanager
def started(size: int, follow: Follow, given: Any) -> Iterator[tuple[Ranks, Path]]:
    """Rank 0 of `size` processes, of which the others are started here; and a folder that they share while the `with` lasts.

    Args:
        size: number of processes, this one included.
        follow: what the others do; a function of a module.
        given: what they need for it; anything that can be pickled.
    """
    context = get_context("spawn")
    use_threads()
    with TemporaryDirectory(prefix="mpq-ranks-") as name:
        folder = Path(name)
        others = [context.Process(target=_run, args=(follow, given, folder, rank, size), daemon=True) for rank in range(1, size)]
        try:
            for other in others:
                other.start()
            yield Several(FolderBoard(folder), 0, size, lambda rank: others[rank - 1].is_alive()), folder
        finally:  # what the others still do is not needed; one may not even have begun
            for other in others:
                if other.is_alive():
                    other.terminate()
                    other.join()


def _run(follow: Follow, given: Any, folder: Path, rank: int, size: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first rank ends the others
    use_threads()
    parent = parent_process()
    try:
        follow(given, Several(FolderBoard(folder), rank, size, lambda _: parent is None or parent.is_alive()))
    except LostError:
        pass
    except Exception:
        os._exit(1)  # the first rank does the same unit, and says what is wrong


def under_torchrun() -> bool:
    """Whether torchrun, or another launcher with its variables, has started several processes of which this is one."""
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    return (
        os.environ.get("WORLD_SIZE", "1").isdecimal() and int(os.environ.get("WORLD_SIZE", "1")) > 1 and all(n in os.environ for n in names)
    )


def joined() -> Ranks:
    """This process as one of those that torchrun has started."""
    use_threads()
    store, rank, size = next(rendezvous("env://"))
    return Several(StoreBoard(store), rank, size)


def use_threads() -> None:
    """As many threads for torch as OMP_NUM_THREADS says, else one: with the same number, all ranks give the same figures to the bit."""
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1") or 1)))
