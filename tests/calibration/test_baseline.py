import pytest
import torch
from torch import nn

from mpq.calibration.baseline import sketched, watchable
from mpq.data.batch import Batch
from mpq.errors import UsageError
from mpq.records.baseline import Baseline
from tests.monitor.conftest import baseline, data, model

__all__ = ["baseline"]


def test_the_baseline_has_a_sketch_of_each_watched_tensor(baseline: Baseline) -> None:
    assert set(baseline.tensors) == {"input", "0.input", "2.input", "output", "output entropy", "output margin"}
    assert baseline.tensors["input"].values == 60 * 8 * 16
    assert {sketch.samples for sketch in baseline.tensors.values()} == {60 * 8}


def test_the_noise_is_that_of_one_sample_whatever_the_batches() -> None:
    """Independent values: the expected index between n and m samples is (bins - 1) / values of a sample x (1/n + 1/m)."""
    found = [sketched(model(), [Batch((x,)) for x in torch.split(torch.cat(data(0)), size)]).noise["input"] for size in (1, 4, 16)]
    assert max(found) < 1.5 * min(found)
    bins = int((sketched(model(), [Batch((x,)) for x in data(0)]).tensors["input"].counts > 0).sum())
    assert bins / 16 * 0.5 < min(found) < bins / 16 * 1.5


def test_up_to_eight_modules_with_matrices_are_watched() -> None:
    deep = nn.Sequential(nn.Embedding(4, 4), *(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(20)))
    assert watchable(deep) == [f"{number}.0" for number in (1, 4, 6, 9, 12, 15, 17, 20)]
    assert watchable(model()) == ["0", "2"]
    assert watchable(nn.ReLU()) == []


def test_one_batch_is_too_few() -> None:
    with pytest.raises(UsageError, match="1 batches are too few for a baseline"):
        sketched(model(), [Batch((torch.randn(2, 16),))])
