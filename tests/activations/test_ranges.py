import pytest
import torch

from mpq.activations.histogram import Histogram
from mpq.activations.ranges import METHODS, Range, parts_of_error, range_between, ranges_of, squared_error
from mpq.activations.rounding import rounded


def histogram_of(values: torch.Tensor) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


def test_a_range_holds_zero_and_its_scale_is_exact_in_single_precision() -> None:
    assert range_between(1.0, 2.55) == Range(0.01, 0)
    assert range_between(-2.55, -1.0) == Range(0.01, 255)
    found = range_between(-1.0, 2.0)
    assert found.zero_point == 85
    assert float(torch.tensor(found.scale)) == pytest.approx(3 / 255)
    assert float(str(torch.tensor(found.scale).numpy())) == found.scale


def test_the_least_squared_error_clips_a_lone_outlier_and_keeps_an_even_spread() -> None:
    bell = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    spiked = ranges_of(histogram_of(torch.cat([bell, torch.tensor([20.0])])))
    assert list(spiked) == list(METHODS)
    assert spiked["minmax"].high == pytest.approx(20, rel=0.01)
    assert spiked["mse"].high < 18
    assert spiked["percentile"].high < 5
    even = ranges_of(histogram_of(torch.linspace(-1, 1, 10_001)))
    assert even["mse"].high == pytest.approx(1, abs=0.02)


def test_the_error_of_a_range_is_that_of_rounding_the_values() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1)).double()
    histogram = histogram_of(values)
    for chosen in (range_between(-1.0, 1.5), range_between(-5.0, 5.0)):
        direct = float((rounded(values, chosen.scale, chosen.zero_point) - values.float()).double().square().mean())
        assert squared_error(histogram, chosen) == pytest.approx(direct, rel=0.02)
    clipping, rounding = parts_of_error(histogram, range_between(-1.0, 1.5))
    assert clipping > 100 * rounding > 0


def test_zeros_of_a_relu_do_not_draw_the_range_of_least_divergence_together() -> None:
    bell = torch.randn(20_000, generator=torch.Generator().manual_seed(2))
    assert ranges_of(histogram_of(bell.relu()))["entropy"].high > 2
