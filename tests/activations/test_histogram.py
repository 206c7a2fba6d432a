import torch

from mpq.activations.histogram import BINS, Histogram


def test_bins_are_merged_where_values_exceed_the_reach_and_no_value_is_lost() -> None:
    histogram, generator = Histogram(), torch.Generator().manual_seed(0)
    parts = [torch.randn(1000, generator=generator) * scale for scale in (0.01, 1.0, 30.0)]
    for part in parts:
        histogram.add(part)
    values = torch.cat(parts)
    assert int(histogram.counts.sum()) == histogram.values == 3000
    assert (histogram.low, histogram.high) == (float(values.min()), float(values.max()))
    assert histogram.reach >= float(values.abs().max())
    width = 2 * histogram.reach / BINS
    for share in (0.01, 0.5, 0.99):
        assert abs(histogram.quantile(share) - float(values.quantile(share))) < 30 * width


def test_what_is_not_finite_is_counted_apart() -> None:
    histogram = Histogram()
    histogram.add(torch.tensor([1.0, float("nan"), float("inf"), -2.0]))
    assert (histogram.values, histogram.not_finite, histogram.low, histogram.high) == (2, 2, -2.0, 1.0)
    assert not histogram.is_constant


def test_a_tensor_of_zeros_is_constant_and_may_become_another_one() -> None:
    histogram = Histogram()
    histogram.add(torch.zeros(3))
    assert histogram.is_constant
    histogram.add(torch.tensor([2.0]))
    assert not histogram.is_constant
    assert int(histogram.counts.sum()) == 4
