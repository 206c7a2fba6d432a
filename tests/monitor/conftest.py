"""A small model, its data, and the baseline of both."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.monitor.baseline import baseline_of
from mpq.records.baseline import Baseline


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def data(seed: int, *, calls: int = 60, change: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [change(torch.randn(8, 16, generator=generator)) for _ in range(calls)]


@pytest.fixture
def baseline() -> Baseline:
    return baseline_of(model(), [Batch((x,)) for x in data(0)], layers=["0", "2"])


def run(module: nn.Module, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        for x in inputs:
            module(x)
