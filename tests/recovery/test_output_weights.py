import pytest
import torch
from torch import nn

from mpq.data.batch import Batch
from mpq.data.dataset import data_from_batches, make_data
from mpq.models.layers.discover import discover
from mpq.models.running.metrics import RelativeMSE, Top1Disagreement
from mpq.recovery.blocks import Block, blocks_of
from mpq.recovery.output_weights import by_channel, output_weights


def blocks(module: nn.Module, batch: Batch) -> list[Block]:
    return blocks_of(module, discover(module, [batch]).layers, batch)


def test_channels_that_the_output_does_not_depend_on_count_nothing() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        module.get_parameter("1.weight").copy_(torch.tensor([[3.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    samples = data_from_batches([torch.randn(256, 3)])
    first, last = output_weights(module, blocks(module, samples.batches[0]), samples, RelativeMSE(), seed=0)
    assert first is not None
    assert last is not None
    assert first.diagonal().mean() == pytest.approx(1)
    assert first[0, 0] / first[1, 1] == pytest.approx(9, rel=0.01)  # random signs: g is 3 and 1 times the same length
    assert first[2, 2] == first[3, 3] == pytest.approx(0.001, rel=0.01)
    assert last.diagonal() == pytest.approx(torch.ones(2), rel=0.01)
    assert not any(parameter.grad is not None for parameter in module.parameters())


def test_a_metric_without_a_gradient_weights_nothing() -> None:
    module, samples = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval(), data_from_batches([torch.randn(8, 3)])
    assert output_weights(module, blocks(module, samples.batches[0]), samples, Top1Disagreement(), seed=0) == [None, None]


def test_padding_counts_nothing() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    mask = torch.tensor([[True, False], [True, True]])
    batch = Batch((torch.randn(2, 2, 2),), mask=mask)
    rows = by_channel(torch.ones(2, 2, 2), blocks(module, batch)[0], batch)
    assert rows.tolist() == [[1, 1], [0, 0], [1, 1], [1, 1]]
    assert make_data([batch], source="").samples == 2


def test_channels_of_maps_are_in_the_last_dimension() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)).eval()
    batch = Batch((torch.randn(1, 2, 2, 2),))
    values = torch.arange(12.0).view(1, 3, 2, 2)
    assert by_channel(values, blocks(module, batch)[0], batch).tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
