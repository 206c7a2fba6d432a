from mpq.monitor.values import KINDS, values
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline
from tests.monitor.conftest import data, model, run

REFERENCE = ("mpq_shadowed_calls", "mpq_kl_divergence", "mpq_agreement")


def test_every_metric_has_a_kind_and_those_of_the_reference_come_with_it(baseline: Baseline) -> None:
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        assert {point.name for point in values(watching)} == {"mpq_calls", "mpq_sampled_calls", "mpq_alarms"}
        run(module, data(1, change=lambda x: 9 * x))
        found = list(values(watching))
    assert {point.name for point in found} == {name for name in KINDS if "_kernel_" not in name and name not in REFERENCE}
    drifted = {point.labels["tensor"] for point in found if point.name == "mpq_stability_index" and point.value > 1}
    assert "input" in drifted
    assert next(point.value for point in found if point.labels == {"kind": "drift"}) >= len(drifted)


def test_a_mean_has_bounds(baseline: Baseline) -> None:
    module = model()
    with monitor(module, baseline, shadow=1.0, reference=model()) as watching:
        run(module, data(1))
        found = {point.labels["bound"]: point.value for point in values(watching) if point.name == "mpq_agreement"}
    assert found["lower"] < found["mean"] == found["upper"] == 1.0
