import pytest

from mpq.monitor.baseline import Baseline
from mpq.monitor.watch import monitor
from tests.monitor.conftest import data, model, run


def test_prometheus_reads_the_figures(baseline: Baseline) -> None:
    client = pytest.importorskip("prometheus_client")
    from mpq.monitor.prometheus import Metrics

    module, registry = model(), client.CollectorRegistry()
    with monitor(module, baseline, sample=1.0, shadow=1.0, reference=model()) as watching:
        registry.register(Metrics(watching))
        run(module, data(1))
        text = client.generate_latest(registry).decode()
    assert "mpq_calls_total 60.0\n" in text
    assert 'mpq_beyond_range{tensor="input"} 0.0\n' in text
    assert "mpq_alarms 0.0\n" in text
    assert "mpq_agreement 1.0\n" in text
