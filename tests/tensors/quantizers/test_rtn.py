import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.rtn import RoundToNearest


def test_the_largest_magnitude_of_each_group_takes_the_last_code() -> None:
    matrix = torch.tensor([[7.0, -3.0, 0.4, 0.6], [0.0, -14.0, 2.0, 5.1]])
    found = RoundToNearest().quantize(matrix, parse_scheme("int4"))
    assert found.codes.tolist() == [[15, 5, 8, 9], [8, 1, 9, 11]]  # 8 stands for zero
    assert found.dequantize().tolist() == [[7, -3, 0, 1], [0, -14, 2, 6]]  # in steps of 1 and 2


def test_halves_go_to_the_even_code() -> None:
    matrix = torch.tensor([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    assert RoundToNearest().quantize(matrix, parse_scheme("int4")).dequantize().tolist() == [[7, 0, 2, 2, 0, -2]]


def test_each_group_has_its_own_scale_and_the_last_may_be_short() -> None:
    matrix = torch.tensor([[7.0, 1.0, 70.0, 10.0, 0.7]])
    found = RoundToNearest().quantize(matrix, parse_scheme("int4-g2"))
    assert found.scales is not None
    assert found.scales.tolist() == [[1, 10, torch.tensor(0.1).half().item()]]
    assert found.codes.tolist() == [[15, 9, 15, 9, 15]]


def test_an_asymmetric_range_has_zero_among_its_values() -> None:
    found = RoundToNearest().quantize(torch.tensor([[3.0, 6.0, 15.0], [-30.0, 0.0, -14.0]]), parse_scheme("int4-asym"))
    assert found.zero_points is not None
    assert found.zero_points.tolist() == [[0], [15]]
    assert found.dequantize().tolist() == [[3, 6, 15], [-30, 0, -14]]


@pytest.mark.parametrize(("scheme", "expected"), [("ternary", [3.0, 0.0, -3.0]), ("fp4-e2m1", [4.0, 0.0, -2.0])])
def test_levels_start_from_what_their_format_says(scheme: str, expected: list[float]) -> None:
    matrix = torch.tensor([[4.0, 0.0, -2.0]])  # mean magnitude 3; largest 4 on level 6, and -2 on level -3
    found = RoundToNearest().quantize(matrix, parse_scheme(scheme)).dequantize()
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=1e-3, atol=0)


def test_rows_of_zeros_stay_zeros_under_a_scale_that_can_be_stored() -> None:
    found = RoundToNearest().quantize(torch.zeros(2, 3), parse_scheme("int4"))
    assert found.scales is not None
    assert found.scales.abs().min() > 0
    assert found.dequantize().tolist() == [[0, 0, 0]] * 2


def test_it_needs_no_data_and_heeds_none() -> None:
    assert not RoundToNearest.needs_statistics
