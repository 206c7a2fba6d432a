import pytest
import torch

from mpq.errors import NumericsError, SchemeError
from mpq.formats.scheme import parse_scheme
from mpq.tensors.coding import encode, encoded
from mpq.tensors.hessian import output_errors
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.coded import LARGEST_CODE, check_room, least_rate, nearest_multiples, on_grid, smallest_steps, to_nearest
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named
from tests.tensors.quantizers.making import statistics_of, weights


def fits(matrix: torch.Tensor, step: float, size: int) -> bool:
    found = nearest_multiples(matrix, step)
    return min(len(encoded(found, classes=classes, strong=False)) for classes in (1, 2, 4, 8)) <= size


@pytest.mark.parametrize("rate", ["ec2.5", "ec3", "ec4.5", "ec6"])
def test_the_step_is_the_smallest_that_fits(rate: str) -> None:
    matrix, scheme = weights(64, 96), parse_scheme(rate)
    found = smallest_steps(matrix, scheme)
    size = scheme.stored_bits((64, 96)) // 8
    assert len(encode(found, size)) == size
    assert not fits(matrix, found.step * 0.985, size)


def test_the_error_is_that_of_an_entropy_coded_grid() -> None:
    matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    for rate, most in (("ec3", 0.0227), ("ec4", 0.0056), ("ec5", 0.0014)):  # at the entropy; the code takes 0.05 to 0.08 bit more
        found = smallest_steps(matrix, parse_scheme(rate))
        error = float((found.codes * found.scales.float() - matrix).square().mean())
        assert most < error < 1.18 * most


def test_codes_are_the_nearest_and_none_is_clipped() -> None:
    matrix = weights(16, 50)
    matrix[3, 7] = 40 * matrix.abs().max()
    grid = on_grid(matrix, float(matrix.abs().max()) / LARGEST_CODE / 4)
    assert int(grid.exponents[3]) == 4
    assert grid.exponents.sum() == grid.exponents[3]
    found = to_nearest(matrix, grid)
    error = (found.codes * found.scales.float() - matrix).abs()
    assert bool((error <= 0.5001 * found.scales.float()).all())


def test_a_grid_begins_with_the_step_of_some_row() -> None:
    matrix = torch.tensor([[8.0, 1.0], [8.0, 2.0]])
    grid = on_grid(matrix, 8 / LARGEST_CODE / 2)
    assert grid.exponents.tolist() == [0, 0]
    assert grid.step == pytest.approx(8 / LARGEST_CODE, rel=1e-3)


def test_weights_that_are_zero_stay_zero() -> None:
    found = smallest_steps(torch.zeros(40, 40), parse_scheme("ec2"))
    assert not found.codes.any()


def test_too_few_weights_are_refused_with_the_least_rate() -> None:
    matrix = weights(4, 20)
    with pytest.raises(SchemeError, match=r"^80 weights are too few for ec1\.5, whose tables take 2\d bytes: use ec2\.\d+ or more$"):
        check_room(matrix, parse_scheme("ec1.5"))
    with pytest.raises(SchemeError, match=r"^6 weights are too few for ec8, whose tables take \d+ bytes: use int8 or 16 bits$"):
        smallest_steps(weights(2, 3), parse_scheme("ec8"))
    check_room(weights(64, 96), parse_scheme("ec1"))


def test_the_least_rate_is_one_that_fits_and_the_next_lower_one_is_not() -> None:
    for rows, columns in ((4, 20), (24, 24), (1, 64), (300, 8)):
        matrix = weights(rows, columns)
        rate = least_rate(matrix)
        assert rate is not None
        smallest_steps(matrix, parse_scheme(f"ec{rate:g}"))
        if rate > 1:
            with pytest.raises(SchemeError, match=f"use ec{rate:g} or more"):
                check_room(matrix, parse_scheme(f"ec{rate - 0.01:g}"))
    assert least_rate(weights(2, 3)) is None
    assert least_rate(weights(64, 96)) == 1


def test_where_compensated_codes_never_fit_the_nearest_ones_are_taken() -> None:
    matrix, scheme = weights(24, 24, seed=1), parse_scheme("ec1")
    for name in ("gptq", "descent"):
        found = quantizer_named(name).quantize(matrix, scheme, statistics_of(24))
        assert found.pack()["codes"].numel() == 72
        assert torch.equal(found.dequantize(), quantizer_named("rtn").quantize(matrix, scheme).dequantize())


def test_weights_beyond_fp16_are_refused() -> None:
    with pytest.raises(NumericsError, match="a weight of 1e\\+06 needs a step that does not fit fp16"):
        smallest_steps(torch.full((8, 8), 1e6), parse_scheme("ec8"))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_quantizer_keeps_the_rate_and_is_read_back(name: str) -> None:
    matrix, scheme = weights(64, 96), parse_scheme("ec3.5")
    found = quantizer_named(name).quantize(matrix, scheme, statistics_of(96))
    parts = found.pack()
    assert {part: tuple(tensor.shape) for part, tensor in parts.items()} == {"codes": (64 * 96 * 350 // 800,)}
    read = unpack_weight(parts, scheme, (64, 96))
    assert torch.equal(read.codes, found.codes)
    assert torch.equal(read.dequantize(), found.dequantize())


def test_errors_that_make_up_for_each_other_lower_the_output_error() -> None:
    matrix, scheme, statistics = weights(64, 96), parse_scheme("ec3.5"), statistics_of(96)
    errors = {}
    for name in ("rtn", "gptq", "descent"):
        found = quantizer_named(name).quantize(matrix, scheme, statistics)
        errors[name] = float(output_errors(found.dequantize() - matrix, statistics.hessian).sum())
    assert errors["descent"] < errors["gptq"] < 0.9 * errors["rtn"]
