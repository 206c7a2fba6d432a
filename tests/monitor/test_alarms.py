import torch

from mpq.monitor.alarms import alarms, shadow_alarms
from mpq.monitor.baseline import Baseline
from mpq.monitor.bounds import RunningMean
from mpq.monitor.sketch import Sketch


def sketched(value: float, calls: int) -> Sketch:
    found = Sketch()
    for _ in range(calls):
        found.add(torch.full((10,), value))
    return found


BASELINE = Baseline({"x": sketched(1.0, 30)}, {"x": 0.0})


def test_fewer_than_20_calls_say_nothing_but_what_is_not_finite() -> None:
    assert list(alarms(BASELINE, {"x": sketched(8.0, 19)})) == []
    assert [each.kind for each in alarms(BASELINE, {"x": sketched(8.0, 20)})] == ["drift", "range"]
    (found,) = alarms(BASELINE, {"x": sketched(torch.nan, 1)})
    assert found.line == "not finite in 'x': values that are not finite 10, limit 0"


def test_the_limit_is_five_times_what_halves_of_the_data_differ_by() -> None:
    noisy = Baseline(BASELINE.tensors, {"x": 100.0})
    assert [each.kind for each in alarms(noisy, {"x": sketched(8.0, 20)})] == ["range"]


def test_a_mean_is_judged_by_its_bound() -> None:
    few, many = RunningMean(count=10, total=5.0), RunningMean(count=100_000, total=50_000.0)
    right = RunningMean(count=100_000, total=100_000.0)
    assert list(shadow_alarms(few, right, most_kl=0.1, least_agreement=0.9)) == []
    (found,) = shadow_alarms(many, right, most_kl=0.1, least_agreement=0.9)
    assert (found.kind, found.limit) == ("kl", 0.1)
    assert 0.48 < found.value < 0.5
