from collections.abc import Iterator

import pytest

from mpq.monitor.values import KINDS, Point, values
from mpq.monitor.watch import Monitor, monitor
from mpq.records.baseline import Baseline
from tests.monitor.conftest import data, packed_model, run, run_with_fallback


def test_opentelemetry_collects_the_values(baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    from mpq.monitor.opentelemetry import observe

    computed: list[Monitor] = []

    def counted(monitor: Monitor) -> Iterator[Point]:
        computed.append(monitor)
        return values(monitor)

    reader = pytest.importorskip("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    module = packed_model()
    with monitor(module, baseline, sample=1.0, shadow=1.0, reference=packed_model()) as watching:
        observe(watching, provider.get_meter("test"), attributes={"model": "small"})
        run_with_fallback(module, data(1))
        monkeypatch.setitem(observe.__globals__, "values", counted)
        collected = reader.get_metrics_data()
        assert computed == [watching]  # once for all metrics
        run(module, data(2, calls=1))
        again = reader.get_metrics_data()
        assert len(computed) == 2
    provider.shutdown()
    found = {metric.name: metric for part in collected.resource_metrics for scope in part.scope_metrics for metric in scope.metrics}
    assert set(found) == {name.replace("_", ".", 1) for name in KINDS}
    (calls,) = found["mpq.calls"].data.data_points
    assert (calls.value, dict(calls.attributes)) == (60, {"model": "small"})
    assert found["mpq.calls"].data.is_monotonic
    (calls,) = next(
        metric.data.data_points
        for part in again.resource_metrics
        for scope in part.scope_metrics
        for metric in scope.metrics
        if metric.name == "mpq.calls"
    )
    assert calls.value == 61
    tensors = {point.attributes["tensor"] for point in found["mpq.stability_index"].data.data_points}
    assert tensors == set(baseline.tensors)
