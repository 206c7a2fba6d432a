from pathlib import Path

import pytest
import torch

from mpq.data.batch import Batch
from mpq.errors import FormatError, UsageError
from mpq.monitor.baseline import Baseline, baseline_of, baseline_path, read_baseline, write_baseline
from tests.monitor.conftest import model


def test_the_baseline_has_a_sketch_of_each_watched_tensor(baseline: Baseline) -> None:
    assert set(baseline.tensors) == {"input", "0.input", "2.input", "output", "output entropy", "output margin"}
    assert baseline.tensors["input"].values == 60 * 8 * 16
    assert max(baseline.noise.values()) < 0.25


def test_a_baseline_reads_back(baseline: Baseline, tmp_path: Path) -> None:
    artifact = tmp_path / "model.mpq.safetensors"
    path = write_baseline(baseline, artifact)
    assert path == tmp_path / "model.mpq.safetensors.monitor.json" == baseline_path(path)
    assert read_baseline(artifact) == baseline
    path.write_text(path.read_text().replace('"first":', '"first":9', 1))
    with pytest.raises(FormatError):
        read_baseline(artifact)


def test_one_batch_is_too_few() -> None:
    with pytest.raises(UsageError, match="1 batches are too few for a baseline"):
        baseline_of(model(), [Batch((torch.randn(2, 16),))])
