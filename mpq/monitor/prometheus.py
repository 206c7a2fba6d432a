"""The values of a monitor for Prometheus, read at each scrape. Requires prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.monitor.values import KINDS, values
from mpq.monitor.watch import Monitor


class Metrics:
    """A collector: `prometheus_client.REGISTRY.register(Metrics(monitor))`.

    Args:
        monitor: whose values are read.
        labels: of every metric, for example {"model": "resnet20"}, so that one process can have several monitors.

    Raises:
        UsageError: if prometheus-client is not installed.
    """

    def __init__(self, monitor: Monitor, labels: dict[str, str] | None = None) -> None:
        try:
            from prometheus_client import core
        except ImportError as error:
            raise UsageError(f"prometheus_client is not installed here: {install('prometheus')}") from error
        self._core, self._monitor, self._labels = core, monitor, labels or {}

    def collect(self) -> Iterator[Any]:
        """The current metrics."""
        families: dict[str, Any] = {}
        for point in values(self._monitor):
            labels = {**self._labels, **point.labels}
            if point.name not in families:
                kind, text = KINDS[point.name]
                made = self._core.CounterMetricFamily if kind == "counter" else self._core.GaugeMetricFamily
                families[point.name] = made(point.name, text, labels=list(labels))
            families[point.name].add_metric(list(labels.values()), point.value)
        yield from families.values()
