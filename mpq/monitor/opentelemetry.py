"""The values of a monitor for OpenTelemetry, read at each collection. Requires opentelemetry-api."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.monitor.values import KINDS, Point, values
from mpq.monitor.watch import Monitor

_OLD = 1.0  # seconds, after which values are not those of this collection


def observe(monitor: Monitor, meter: Any = None, *, attributes: dict[str, str] | None = None) -> None:
    """Register an observable instrument for each metric: `mpq.calls`, `mpq.stability_index` and others.

    Args:
        monitor: whose values are read.
        meter: an OpenTelemetry meter; None for that of the global provider called "mpq".
        attributes: of every metric, for example {"model": "resnet20"}.

    Raises:
        UsageError: if opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise UsageError(f"opentelemetry-api is not installed here: {install('opentelemetry')}") from error
    chosen = metrics.get_meter("mpq") if meter is None else meter
    found = _Collection(monitor)
    for name, (kind, text) in KINDS.items():
        create = chosen.create_observable_counter if kind == "counter" else chosen.create_observable_gauge
        create(name.replace("_", ".", 1), callbacks=[_callback(found, name, attributes or {}, metrics.Observation)], description=text)


class _Collection:
    """The values of one collection, which asks for every metric once; a metric that is asked for again begins another."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._lock = monitor, threading.Lock()
        self._points: list[Point] = []
        self._asked: set[str] = set(KINDS)
        self._since = 0.0

    def of(self, name: str) -> list[Point]:
        with self._lock:
            if name in self._asked or time.monotonic() - self._since > _OLD:
                self._points, self._asked, self._since = list(values(self._monitor)), set(), time.monotonic()
            self._asked.add(name)
            return [point for point in self._points if point.name == name]


def _callback(found: _Collection, name: str, attributes: dict[str, str], observation: Any) -> Callable[[Any], Iterator[Any]]:
    def read(_: Any) -> Iterator[Any]:
        yield from (observation(point.value, {**attributes, **point.labels}) for point in found.of(name))

    return read
