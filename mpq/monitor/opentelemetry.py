"""The values of a monitor for OpenTelemetry, read at each collection. Requires opentelemetry-api."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.monitor.values import KINDS, values
from mpq.monitor.watch import Monitor


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
    for name, (kind, text) in KINDS.items():
        create = chosen.create_observable_counter if kind == "counter" else chosen.create_observable_gauge
        create(name.replace("_", ".", 1), callbacks=[_callback(monitor, name, attributes or {}, metrics.Observation)], description=text)


def _callback(monitor: Monitor, name: str, attributes: dict[str, str], observation: Any) -> Callable[[Any], Iterator[Any]]:
    def read(_: Any) -> Iterator[Any]:
        yield from (observation(point.value, {**attributes, **point.labels}) for point in values(monitor) if point.name == name)

    return read
