import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.quantizers.mse import WeightError
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.tensors.quantizers.making import weights


def squared_error(values: Tensor, matrix: Tensor) -> Tensor:
    return (values - matrix).double().square().sum(1)


def least_over_fine_scales(row: Tensor, scheme: Scheme) -> float:
    """Naive: the least squared error of one row over 4000 scales of either sign."""
    middle, best = 2 ** (scheme.bits - 1), float("inf")
    for scale in torch.linspace(0.05, 1.3, 2000).double() * float(row.abs().max()) / (middle - 1):
        for signed in (scale, -scale):
            values = (row.double() / signed).round().clamp(-middle, middle - 1) * signed
            best = min(best, float((values - row.double()).square().sum()))
    return best


@pytest.mark.parametrize("scheme", ["int2", "int3", "int4"])
def test_the_error_is_near_the_least_that_any_scale_gives(scheme: str) -> None:
    matrix = weights(6, 48)
    found = squared_error(WeightError().quantize(matrix, parse_scheme(scheme)).dequantize(), matrix)
    for row, at in zip(matrix, found.tolist(), strict=True):
        assert at <= 1.1 * least_over_fine_scales(row, parse_scheme(scheme))


@pytest.mark.parametrize("scheme", ["int2-g16", "int4-asym-g16", "nf4", "ternary"])
def test_no_row_is_worse_than_rounded_to_nearest_and_all_together_are_better(scheme: str) -> None:
    matrix = weights(16, 50)
    found, rounded = (
        squared_error(one.quantize(matrix, parse_scheme(scheme)).dequantize(), matrix) for one in (WeightError(), RoundToNearest())
    )
    assert bool((found <= rounded).all())
    assert found.sum() < 0.95 * rounded.sum()


def test_weights_that_the_codes_hold_exactly_are_held_exactly() -> None:
    matrix = torch.tensor([[-8.0, 7.0, 3.0, 0.0], [8.0, -7.0, 1.0, 2.0]])  # the second needs a negative scale
    assert torch.equal(WeightError().quantize(matrix, parse_scheme("int4")).dequantize(), matrix)


def test_an_outlier_is_clipped_where_the_others_gain_more() -> None:
    matrix = torch.cat([torch.linspace(-1, 1, 61), torch.tensor([4.0])])[None]
    found = WeightError().quantize(matrix, parse_scheme("int2")).dequantize()
    assert found.abs().max() < 3.0
