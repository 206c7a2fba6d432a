"""Weights, statistics of their inputs, and a naive output error, for the tests of quantizers."""

import torch
from torch import Tensor

from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Statistics


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=generator(seed)) * 0.1


def statistics_of(columns: int, *, count: int = 400, groups: int = 0, seed: int = 1) -> Statistics:
    """Of correlated inputs, some columns far more energetic than others."""
    mixing = torch.randn(columns, columns, generator=generator(seed)) * torch.logspace(-1, 0.5, columns)
    shape = (groups, count, columns) if groups else (count, columns)
    inputs = torch.randn(*shape, generator=generator(seed + 1)) @ mixing
    return Statistics(inputs.mT @ inputs / count, count)


def error(weight: QuantizedWeight, matrix: Tensor, statistics: Statistics) -> Tensor:
    """Naive: the output error of each row, float64."""
    blocks = statistics.hessian.double().reshape(-1, *statistics.hessian.shape[-2:])
    in_group = matrix.shape[0] // len(blocks)
    difference = (weight.dequantize() - matrix).double()
    return torch.stack([row @ blocks[number // in_group] @ row for number, row in enumerate(difference)])
