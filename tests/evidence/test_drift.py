import numpy as np
import pytest

from mpq.evidence.drift import Comparison, alarms, compared, drift_limit, shadow_alarms, stability_index
from mpq.evidence.running_mean import RunningMean
from mpq.records.baseline import Baseline
from mpq.records.sketch import Sketch


def sketched(value: float, samples: int) -> Sketch:
    found = Sketch()
    for _ in range(samples):
        found.add(np.full(10, value, dtype=np.float32))
    return found


def normal(seed: int, scale: float = 1.0) -> Sketch:
    found = Sketch()
    found.add(scale * np.random.default_rng(seed).normal(size=4000).astype(np.float32))
    return found


BASELINE = Baseline({"x": sketched(1.0, 100)}, {"x": 0.0})


def test_fewer_than_50_samples_say_nothing_but_what_is_not_finite() -> None:
    assert list(alarms(BASELINE, {"x": sketched(8.0, 49)})) == []
    assert [each.kind for each in alarms(BASELINE, {"x": sketched(8.0, 50)})] == ["drift", "range"]
    (found,) = alarms(BASELINE, {"x": sketched(np.nan, 1)})
    assert found.line == "not finite in 'x': values that are not finite 10, limit 0"


def test_a_tensor_is_compared_if_it_has_samples_and_a_baseline() -> None:
    found = {"x": sketched(1.0, 50), "y": sketched(np.nan, 3)}
    known, other = compared(BASELINE, found)
    assert known == Comparison("x", 50, 0, 0.0, 0.01, 0.0)
    assert known.ratio == 0.0
    assert (other, other.ratio) == (Comparison("y", 3, 30), None)
    assert list(compared(BASELINE, {"x": Sketch()})) == [Comparison("x", 0, 0)]


@pytest.mark.parametrize(
    ("noise", "limit"),
    [
        (0.0, 0.01),
        (0.5, 0.1 + 5 * 0.5 * (1 / 50 + 1 / 100)),
        (10.0, 0.25 + 5 * 10 * (1 / 50 + 1 / 100)),
    ],
)
def test_the_limit_grows_with_what_samples_differ_by(noise: float, limit: float) -> None:
    for name, factor in (("x", 1), ("output entropy", 2), ("output margin", 2)):
        known = Baseline({name: sketched(1.0, 100)}, {name: noise})
        assert drift_limit(known, name, 50) == pytest.approx(factor * limit)


def test_certainty_has_no_range() -> None:
    known = Baseline({"output margin": sketched(1.0, 100)}, {"output margin": 0.0})
    assert [each.kind for each in alarms(known, {"output margin": sketched(0.1, 50)})] == ["drift"]


def test_the_index_of_the_same_data_is_small_and_of_other_data_large() -> None:
    assert stability_index(normal(0), normal(0)) == 0.0
    assert stability_index(normal(0), normal(1)) < 0.05
    assert stability_index(normal(0), normal(1, 2.0)) > 0.25
    assert stability_index(normal(0), Sketch()) == 0.0


def test_the_index_is_the_sum_over_bins() -> None:
    first, second = Sketch(), Sketch()
    first.add(np.array([1.0] * 9 + [-1.0], dtype=np.float32))
    second.add(np.array([1.0] * 5 + [-1.0] * 5, dtype=np.float32))
    p, q = np.array([9.5, 1.5]) / 11, np.array([5.5, 5.5]) / 11
    assert stability_index(first, second) == pytest.approx(((p - q) * np.log(p / q)).sum())


def test_a_mean_is_judged_by_its_bound() -> None:
    few, many = RunningMean(count=10, total=5.0), RunningMean(count=100_000, total=50_000.0, spread=25_000.0)
    right = RunningMean(count=100_000, total=100_000.0)
    assert list(shadow_alarms(few, right, most_kl=0.1, least_agreement=0.9)) == []
    (found,) = shadow_alarms(many, right, most_kl=0.1, least_agreement=0.9)
    assert (found.kind, found.limit) == ("kl", 0.1)
    assert 0.48 < found.value < 0.5
