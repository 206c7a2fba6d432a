import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.act import ActivationEnergy, energy_scales
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.mse import WeightError
from mpq.tensors.scales import best_scales, grouped
from tests.tensors.quantizers.making import statistics_of, weights


def weighted_error(values: Tensor, matrix: Tensor, energy: Tensor) -> float:
    return float(((values - matrix).double().square() * energy.double()).sum())


@pytest.mark.parametrize("scheme", ["int3-g16", "int4-asym", "nf4-g16", "ternary"])
def test_errors_weighted_by_energy_are_less_than_those_of_the_weights_alone(scheme: str) -> None:
    matrix, statistics = weights(16, 40), statistics_of(40)
    energy = statistics.hessian.diagonal()
    found = ActivationEnergy().round(matrix, parse_scheme(scheme), statistics).dequantize()
    blind = WeightError().round(matrix, parse_scheme(scheme), None).dequantize()
    assert weighted_error(found, matrix, energy) < weighted_error(blind, matrix, energy)


def test_the_column_that_carries_the_energy_is_kept_nearest() -> None:
    matrix = torch.tensor([[0.30, 0.31, 0.29, 2.0]])
    found = {
        at: ActivationEnergy().round(matrix, parse_scheme("int2"), Statistics(torch.eye(4).index_fill(1, torch.tensor([3]), 0), 100))
        if at == "small"
        else ActivationEnergy().round(matrix, parse_scheme("int2"), Statistics(torch.diag(torch.tensor([0.0, 0, 0, 1])), 100))
        for at in ("small", "large")
    }
    errors = {at: (weight.dequantize() - matrix).abs()[0].tolist() for at, weight in found.items()}
    assert max(errors["small"][:3]) < 0.05
    assert errors["large"][3] < 0.01


def test_equal_energies_are_the_search_by_weight_error() -> None:
    matrix, scheme = weights(5, 37), parse_scheme("int4-g16")
    found, expected = energy_scales(matrix, scheme, torch.eye(37)), best_scales(grouped(matrix, scheme), scheme)
    torch.testing.assert_close(found.scale, expected.scale)
    torch.testing.assert_close(found.zero_point, expected.zero_point)


def test_blocks_of_rows_have_energies_of_their_own() -> None:
    matrix, statistics, scheme = weights(6, 40), statistics_of(40, groups=3), parse_scheme("int3-g16")
    found = energy_scales(matrix, scheme, statistics.hessian)
    for block in range(3):
        rows = slice(2 * block, 2 * block + 2)
        assert torch.equal(found.scale[rows], energy_scales(matrix[rows], scheme, statistics.hessian[block]).scale)


def test_products_of_different_columns_do_not_count() -> None:
    matrix, statistics, scheme = weights(6, 40), statistics_of(40), parse_scheme("int3")
    alone = Statistics(torch.diag(statistics.hessian.diagonal()), statistics.count)
    codes = [ActivationEnergy().round(matrix, scheme, one).codes for one in (statistics, alone)]
    assert torch.equal(*codes)
