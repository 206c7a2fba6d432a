"""Quantizes in several processes: each takes a layer with its schemes and returns packed codes.

The codes do not depend on the number of processes, because a layer is always quantized by one thread (`one_thread`). The processes are
started here and end with the work. If one dies, the unfinished layers are left to the caller.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from safetensors.torch import load, save
from torch import Tensor

from mpq.errors import MpqError, UsageError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.processors import processors
from mpq.tensors.quantizers.base import Quantizer, Statistics

_WORTH_IT = 20_000_000  # weights times schemes above which processes save more time than starting them takes
_AHEAD = 2  # layers per process that wait in memory


@dataclass(frozen=True, eq=False)
class Unit:
    """One layer to quantize.

    Args:
        name: of the layer.
        schemes: all wanted schemes.
        matrix: its weight, float32 [rows, columns].
        statistics: its input statistics, if the quantizer uses them and they exist.
    """

    name: str
    schemes: Sequence[Scheme]
    matrix: Tensor
    statistics: Statistics | None


def workers_of(text: str, pairs: int) -> int:
    """The number of processes for `--workers`: the given number, or for "auto" by processors and work.

    Args:
        text: the option.
        pairs: weights times schemes.

    Raises:
        UsageError: if it is neither.
    """
    if text == "auto":
        return processors() if pairs >= _WORTH_IT else 1
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UsageError(f"--workers {text} is not a number of processes: write 1, 2, ... or auto")
    return int(text)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the `with`, torch uses one thread, so sums have the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def quantized_in_processes(
    units: Iterable[Unit], quantizer: Quantizer, workers: int
) -> Iterator[tuple[str, list[tuple[Scheme, dict[str, Tensor]]]]]:
    """The packed parts of each unit under its schemes, with the layer's name, in the order of the units.

    It ends early if a process dies.

    Raises:
        MpqError: any error of the quantizer, with the layer and the scheme.
    """
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    waiting: deque[tuple[Unit, Future[list[bytes]]]] = deque()

    def first() -> tuple[str, list[tuple[Scheme, dict[str, Tensor]]]]:
        unit, future = waiting.popleft()
        return unit.name, [(scheme, load(each)) for scheme, each in zip(unit.schemes, future.result(), strict=True)]

    try:
        for unit in units:
            waiting.append((unit, pool.submit(_quantize, quantizer, unit.name, list(map(str, unit.schemes)), *_sent(unit))))
            if len(waiting) > _AHEAD * workers:
                yield first()
        while waiting:
            yield first()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes
    torch.set_num_threads(1)


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _sent(unit: Unit) -> tuple[bytes, int]:
    tensors = {"matrix": unit.matrix} if unit.statistics is None else {"matrix": unit.matrix, "hessian": unit.statistics.hessian}
    return _saved(tensors), 0 if unit.statistics is None else unit.statistics.count


def _quantize(quantizer: Quantizer, name: str, schemes: Sequence[str], sent: bytes, count: int) -> list[bytes]:
    """Runs in a separate process: the packed parts under each scheme."""
    tensors: Mapping[str, Tensor] = load(sent)
    statistics = Statistics(tensors["hessian"], count) if "hessian" in tensors else None
    found = []
    for scheme in schemes:
        try:
            found.append(_saved(quantizer.quantize(tensors["matrix"], parse_scheme(scheme), statistics).pack()))
        except MpqError as error:
            raise type(error)(f"layer '{name}' at {scheme}: {error}") from error
    return found
