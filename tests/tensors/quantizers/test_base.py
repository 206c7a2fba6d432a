"""What the base does for every quantizer: casts, the way without statistics, and rows that come out worse."""

import pytest
import torch
from torch import Tensor

from mpq.formats.registry import names
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics, assemble, better_rows, nearest
from mpq.tensors.quantizers.mse import WeightError
from mpq.tensors.quantizers.rtn import RoundToNearest
from mpq.tensors.scales import Scales, grouped, minmax_scales
from tests.tensors.quantizers.making import statistics_of, weights

INT4 = parse_scheme("int4")


class Halving(Quantizer):
    """A bad one: it forgets every row but the first."""

    name = "halving"
    needs_statistics = True

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        assert statistics is not None
        first = matrix * (torch.arange(len(matrix)) == 0).unsqueeze(1)
        return nearest(first, scheme, minmax_scales(grouped(matrix, scheme), scheme))


class Untouched(Quantizer):
    """One that must not be asked."""

    name = "untouched"

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        raise AssertionError("asked")


@pytest.mark.parametrize("scheme", names("floats"))
def test_floating_point_is_a_cast_that_asks_no_quantizer(scheme: str) -> None:
    matrix = weights(6, 40)
    found = Untouched().quantize(matrix, parse_scheme(scheme), statistics_of(40))
    assert found.codes.dtype == FLOAT_DTYPES[scheme]
    assert torch.equal(found.dequantize(), matrix.to(FLOAT_DTYPES[scheme]).float())
    assert (found.scales, found.zero_points) == (None, None)


@pytest.mark.parametrize("scheme", ["int4-g32", "int3-asym", "nf4"])
def test_without_statistics_it_is_the_least_weight_error(scheme: str) -> None:
    found, expected = (one.quantize(weights(8, 64), parse_scheme(scheme)) for one in (Halving(), WeightError()))
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.dequantize(), expected.dequantize())


@pytest.mark.parametrize("scheme", ["int4-g32", "int3-asym-g16", "nf4", "mxfp4"])
def test_rows_that_came_out_worse_are_rounded_to_nearest(scheme: str) -> None:
    matrix, parsed = weights(5, 64), parse_scheme(scheme)
    found, rounded = Halving().quantize(matrix, parsed, statistics_of(64)), RoundToNearest().quantize(matrix, parsed)
    assert torch.equal(found.dequantize(), rounded.dequantize())


def codes(*rows: list[int], scale: float = 1.0, zero_points: list[int] | None = None, scheme: Scheme = INT4) -> QuantizedWeight:
    zeros = None if zero_points is None else torch.tensor(zero_points, dtype=torch.uint8).view(-1, 1)
    scales = torch.full((len(rows), 1), scale, dtype=torch.float16)
    return QuantizedWeight(scheme, (len(rows), len(rows[0])), torch.tensor(rows, dtype=torch.uint8), scales, zeros)


def test_each_row_comes_from_the_weight_with_the_smaller_output_error_and_a_tie_from_the_first() -> None:
    matrix = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    first, second = codes([9, 10], [9, 8], [10, 10]), codes([9, 10], [9, 10], [9, 11], scale=1.0)
    equal = better_rows(first, second, matrix, Statistics(torch.eye(2), 10))
    assert equal.codes.tolist() == [[9, 10], [9, 10], [10, 10]]  # errors 0 and 0, 4 and 0, 1 and 1
    second_column = better_rows(first, second, matrix, Statistics(torch.diag(torch.tensor([9.0, 1.0])), 10))
    assert second_column.codes.tolist() == [[9, 10], [9, 10], [9, 11]]  # in the last row 9 against 1


def test_scales_and_zero_points_go_with_the_row() -> None:
    scheme, matrix = parse_scheme("int4-asym"), torch.tensor([[4.0], [4.0]])
    first = codes([6], [0], scale=2.0, zero_points=[4, 0], scheme=scheme)  # 4 and 0
    second = codes([0], [5], scale=1.0, zero_points=[0, 1], scheme=scheme)  # 0 and 4
    found = better_rows(first, second, matrix, Statistics(torch.eye(1), 10))
    assert found.scales is not None
    assert found.zero_points is not None
    assert (found.codes.tolist(), found.scales.tolist(), found.zero_points.tolist()) == ([[6], [5]], [[2], [1]], [[4], [1]])
    assert torch.equal(found.dequantize(), matrix)


def test_nothing_is_copied_where_the_first_is_nowhere_worse() -> None:
    weight = codes([9, 10])
    assert better_rows(weight, codes([0, 0]), torch.tensor([[1.0, 2.0]]), Statistics(torch.eye(2), 10)) is weight


def test_codes_of_integers_levels_and_powers_of_two_are_assembled_as_they_are_stored() -> None:
    scales = Scales(torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    whole = assemble(torch.tensor([[0.0, 15.0]]), parse_scheme("int4-asym"), scales)
    assert whole.zero_points is not None
    assert (whole.codes.tolist(), whole.zero_points.tolist()) == ([[0, 15]], [[3]])
    assert whole.dequantize().tolist() == [[-6, 24]]
    levels = assemble(torch.tensor([[-6.0, 0.5]]), parse_scheme("fp4-e2m1"), scales)
    assert (levels.zero_points, levels.dequantize().tolist()) == (None, [[-12, 1]])
    powers = assemble(torch.tensor([[-6.0, 0.5]]), parse_scheme("mxfp4"), scales)
    assert powers.scales is not None
    assert (powers.scales.dtype, powers.scales.tolist()) == (torch.uint8, [[128]])  # 2 ** (128 - 127)
    assert powers.dequantize().tolist() == [[-12, 1]]


def test_nearest_codes_under_given_scales_clip_to_the_ends() -> None:
    scales = Scales(torch.tensor([[0.5, 1.0]]).half(), torch.full((1, 2), 8.0))
    found = nearest(torch.tensor([[1.0, -9.0, 0.6, 9.0, -1.2]]), parse_scheme("int4-g3"), scales)
    assert found.codes.tolist() == [[10, 0, 9, 15, 7]]
