"""The largest errors that gradients predict are measured, and scaled to what is measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.analyze.large_errors import MOST_PAIRS, large_pairs, scale_lines, scale_of
from mpq.data.dataset import Data, data_from_batches
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Sensitivity, read_sensitivity

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn", "method": "fisher", "metric": "relative_mse"}


class Saturated(nn.Module):
    """A layer whose large changes do much less than its gradients say, and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bent, self.plain = nn.Linear(16, 48), nn.Linear(48, 24)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.plain(torch.tanh(8 * self.bent(x)))
        return found


def samples(count: int = 60) -> Data:
    return data_from_batches(list(torch.split(torch.randn(count, 16, generator=torch.Generator().manual_seed(1)), 8)))


def analyzed(path: Path | None = None, **choices: Any) -> Sensitivity:
    return mpq.analyze(Saturated().eval(), samples(), output=path, **(CHOICES | choices))


def test_an_error_that_gradients_overstate_becomes_the_measured_one() -> None:
    found, measured = analyzed(), analyzed(method="measure")
    pair = ("bent", Scheme("int2"))
    assert found.scales[pair] < 0.6
    assert found.mean(*pair) == pytest.approx(measured.mean(*pair), rel=0.1)
    assert all(0.8 < found.mean(*key) / measured.mean(*key) < 1.25 for key in found.scales)
    assert set(found.scales) < set(found.errors)
    assert found.finish is not None
    assert "bent int2 times 0." in found.finish["notes"][-1]
    assert found.finish["cost"]["scale_passes"] == 4 * (1 + len(found.scales))  # 32 samples in batches of 8, and the reference
    assert abs(found.finish["check"]["additive"]["bias"]) < 0.1


def test_scales_are_read_again_and_not_measured_twice(tmp_path: Path) -> None:
    whole = analyzed(tmp_path / "t.jsonl")
    lines = (tmp_path / "t.jsonl").read_bytes().splitlines(keepends=True)
    scales = [number for number, line in enumerate(lines) if b'"scale"' in line]
    assert len(scales) == len(whole.scales) > 1
    (tmp_path / "t.jsonl").write_bytes(b"".join(lines[: scales[0] + 1]))
    cut = read_sensitivity(tmp_path / "t.jsonl")
    assert not cut.finished
    assert len(cut.scales) == 1
    again = analyzed(tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_bytes().splitlines()[:-1] == [line.rstrip(b"\n") for line in lines[:-1]]
    assert all(again.errors[key].tolist() == errors.tolist() for key, errors in whole.errors.items())


def test_a_scale_is_the_ratio_of_the_means_shrunk_by_its_noise() -> None:
    predicted = np.array([1.0, 2.0, 3.0, 2.0])
    assert scale_of(predicted, predicted / 2, whole=99) == 0.5
    assert scale_of(predicted, predicted, whole=99) == 1.0
    measured = np.array([1.0, 1.0, 1.0, 1.0])  # a ratio of 0.5 with residuals 0.5, 0, -0.5, 0
    noise = np.sqrt(0.5 / 3) * np.sqrt(1 / 4 - 1 / 16) / 2
    assert scale_of(predicted, measured, whole=16) == pytest.approx(1 - 0.5 * (1 - (noise / 0.5) ** 2), rel=1e-3)
    assert scale_of(predicted, measured, whole=4) == 0.5
    assert scale_of(np.array([1.0, 2.0, 1.0, 2.0]), np.array([0.0, 4.0, 2.0, 0.5]), whole=99) == 1.0  # within its noise
    assert scale_of(predicted, np.array([1.0, np.nan, 1.0, 1.0]), whole=9) == scale_of(np.zeros(4), predicted, whole=9) == 1.0


def test_pairs_of_a_small_share_and_measured_ones_are_left_alone() -> None:
    assert not analyzed(method="measure").scales
    found = analyzed()
    assert large_pairs(found) == []
    assert 0 < len(found.scales) < len(found.errors)
    known = found.scales
    found.scales = dict.fromkeys(list(found.errors)[: MOST_PAIRS - 1], 1.0)
    assert len(large_pairs(found)) <= 1
    found.scales = {}
    assert set(large_pairs(found)) <= set(known)


def test_few_samples_give_no_scale() -> None:
    found = mpq.analyze(Saturated().eval(), samples(4), **CHOICES)
    assert not found.scales
    assert scale_lines(found, 3) == []
