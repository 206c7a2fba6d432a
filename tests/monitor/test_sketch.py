import json

import pytest
import torch

from mpq.monitor.sketch import BINS, Sketch, sketch_in, stability_index


def sketched(*tensors: torch.Tensor) -> Sketch:
    found = Sketch()
    for tensor in tensors:
        found.add(tensor)
    return found


def normal(seed: int, *, scale: float = 1.0, count: int = 4000) -> torch.Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_values_are_counted_by_sign_and_half_octave() -> None:
    found = sketched(torch.tensor([1.0, 1.9, 2.0, -1.0, 0.0, 1e-9, 1e9, torch.nan, -torch.inf]))
    middle = BINS // 2
    assert [found.counts[middle + place] for place in (-33, 0, 33, 34, 35, 64)] == [1, 2, 1, 1, 1, 1]
    assert (found.values, found.not_finite, found.calls) == (7, 2, 1)
    assert (found.minimum, found.maximum) == (-1.0, 1e9)


def test_a_record_reads_back_and_takes_less_than_a_kilobyte() -> None:
    found = sketched(*(normal(seed) for seed in range(50)))
    text = json.dumps(found.to_dict())
    assert sketch_in(json.loads(text)) == found
    assert len(text) < 1000
    assert sketch_in(Sketch().to_dict()) == Sketch()


def test_the_index_of_the_same_data_is_small_and_of_other_data_large() -> None:
    wanted = sketched(normal(0))
    assert stability_index(wanted, wanted) == 0.0
    assert stability_index(wanted, sketched(normal(1))) < 0.05
    assert stability_index(wanted, sketched(normal(1, scale=2.0))) > 0.25
    assert stability_index(wanted, Sketch()) == 0.0


def test_the_index_is_the_sum_over_bins() -> None:
    first, second = sketched(torch.tensor([1.0] * 9 + [-1.0])), sketched(torch.tensor([1.0] * 5 + [-1.0] * 5))
    p, q = torch.tensor([9.5, 1.5]) / 11, torch.tensor([5.5, 5.5]) / 11
    assert stability_index(first, second) == pytest.approx(float(((p - q) * (p / q).log()).sum()), rel=1e-6)


def test_values_beyond_a_range_are_a_share() -> None:
    seen = sketched(torch.tensor([-1.0, 0.5, 3.0]))
    assert sketched(torch.tensor([1.0, 2.0, 8.0, -8.0])).beyond(seen) == 0.5
    assert sketched(torch.tensor([1.0])).beyond(Sketch()) == 0.0


def test_a_large_tensor_is_looked_at_in_part() -> None:
    assert sketched(torch.ones(100_000)).values == 4000
