"""The values of a monitor for Prometheus, read at each scrape. Requires prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mpq.distribution import install
from mpq.errors import UsageError
from mpq.monitor.sketch import stability_index
from mpq.monitor.watch import Monitor


class Metrics:
    """A collector: `prometheus_client.REGISTRY.register(Metrics(monitor))`.

    Raises:
        UsageError: if prometheus-client is not installed.
    """

    def __init__(self, monitor: Monitor) -> None:
        try:
            from prometheus_client import core
        except ImportError as error:
            raise UsageError(f"prometheus_client is not installed here: {install('prometheus')}") from error
        self._core, self._monitor = core, monitor

    def collect(self) -> Iterator[Any]:
        """The current metrics."""
        monitor, core = self._monitor, self._core
        yield core.CounterMetricFamily("mpq_calls", "Calls of the model.", value=monitor.calls)
        yield core.CounterMetricFamily("mpq_sampled_calls", "Calls that were sketched.", value=monitor.sampled)
        drift = core.GaugeMetricFamily("mpq_stability_index", "Population stability index against the baseline.", labels=["tensor"])
        beyond = core.GaugeMetricFamily("mpq_beyond_range", "Share of values beyond the calibrated range.", labels=["tensor"])
        broken = core.CounterMetricFamily("mpq_not_finite", "Values that are not finite.", labels=["tensor"])
        for name, found in list(monitor.sketches.items()):
            broken.add_metric([name], found.not_finite)
            wanted = monitor.baseline.tensors.get(name)
            if wanted is not None:
                drift.add_metric([name], stability_index(wanted, found))
                beyond.add_metric([name], found.beyond(wanted))
        yield from (drift, beyond, broken)
        yield core.GaugeMetricFamily("mpq_alarms", "Number of drift alarms.", value=len(monitor.alarms()))
        if monitor.divergence.count:
            yield core.CounterMetricFamily(
                "mpq_shadowed_calls", "Calls that were also run through the reference.", value=monitor.divergence.count
            )
            yield core.GaugeMetricFamily(
                "mpq_kl_divergence", "Mean KL divergence from the reference, in nats.", value=monitor.divergence.mean
            )
            yield core.GaugeMetricFamily("mpq_agreement", "Mean top-1 agreement with the reference.", value=monitor.agreement.mean)
