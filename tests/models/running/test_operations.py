import torch
from torch import nn

from mpq.data.dataset import data_from_batches
from mpq.models.running.operations import operations


def test_products_and_convolutions_are_counted_alike_in_all_kinds_of_models() -> None:
    module, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), torch.randn(5, 8)
    (batch,) = data_from_batches([x]).batches
    expected = 2 * 5 * (8 * 16 + 16 * 4)
    assert operations(module, batch) == expected
    assert operations(torch.export.export(module, (x,)).module(check_guards=False), batch) == expected
    convolution = nn.Conv2d(2, 3, 3).eval()
    assert operations(convolution, data_from_batches([torch.randn(4, 2, 5, 5)]).batches[0]) == 2 * 4 * 9 * 3 * 2 * 9
