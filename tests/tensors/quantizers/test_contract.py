"""What every quantizer must keep, whatever its method."""

from __future__ import annotations

import math

import pytest
import torch

from mpq.errors import NumericsError
from mpq.formats.base import Format
from mpq.formats.registry import formats
from mpq.formats.scheme import parse_scheme
from mpq.tensors.hessian import output_errors
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named
from tests.tensors.quantizers.making import error, statistics_of, weights

KINDS = (
    "int3",  # codes that cross bytes
    "int4-asym-g16",  # zero points, a short last group
    "int4-g16-s8",  # scales in 8 bits
    "int8",
    "int1-g16",  # no level is zero
    "ternary",  # codes in digits, scales that start from the mean
    "nf4-g16",  # a table, looked up by cells
    "nl5-g16-s8",
    "fp4-e2m1-g16",  # a table, searched
    "fp8-e5m2",  # codes that are never used
    "mxfp4",  # powers of two as scales, groups that are fixed
)
"""A scheme for each kind of format: what a quantizer or the packing treats in a way of its own."""

INFORMED = [name for name in QUANTIZERS if QUANTIZERS.kind(name).needs_statistics]


def traits(element: Format) -> tuple[object, ...]:
    """What sets formats apart for a quantizer."""
    zero = element.kind == "integers" or 0.0 in element.levels
    unused = any(map(math.isnan, element.levels))
    return (
        element.kind,
        zero,
        unused,
        element.radix,
        element.start,
        bool(element.cells),
        element.exponent_scales,
        element.fixed_group is None,
    )


def test_the_schemes_here_stand_for_every_kind_of_format() -> None:
    covered = {traits(parse_scheme(scheme).element) for scheme in KINDS}
    assert [name for name, element in formats().items() if element.kind != "floats" and traits(element) not in covered] == []


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("scheme", KINDS)
def test_stored_as_the_scheme_says_and_read_back_exactly(name: str, scheme: str) -> None:
    parsed = parse_scheme(scheme)
    found = quantizer_named(name).quantize(weights(5, 37), parsed, statistics_of(37))
    parts = found.pack()
    assert {part: tuple(tensor.shape) for part, tensor in parts.items()} == {each.part: each.shape for each in parsed.stored((5, 37))}
    assert torch.equal(unpack_weight(parts, parsed, (5, 37)).dequantize(), found.dequantize())


@pytest.mark.parametrize("name", QUANTIZERS)
class TestEveryQuantizer:
    def test_asked_again_in_any_order_gives_the_same(self, name: str) -> None:
        quantizer, kept, another = quantizer_named(name), statistics_of(64), statistics_of(64, seed=5)
        first = quantizer.quantize(weights(8, 64), parse_scheme("int4-g32"), kept)
        quantizer.quantize(weights(8, 64), parse_scheme("int2"), another)
        for asked in (quantizer, quantizer_named(name)):
            again = asked.quantize(weights(8, 64), parse_scheme("int4-g32"), kept)
            assert torch.equal(again.codes, first.codes)
            assert torch.equal(again.dequantize(), first.dequantize())

    def test_the_matrix_is_left_as_it_was(self, name: str) -> None:
        matrix = weights(8, 64)
        quantizer_named(name).quantize(matrix, parse_scheme("int4"), statistics_of(64))
        assert torch.equal(matrix, weights(8, 64))

    @pytest.mark.parametrize("scheme", ["int2", "int4-asym-g16", "ternary", "nf4-g16", "mxfp4"])
    def test_zero_rows_and_columns_stay_zero(self, name: str, scheme: str) -> None:
        matrix = weights(6, 40)
        matrix[2] = 0
        matrix[:, 7] = 0
        values = quantizer_named(name).quantize(matrix, parse_scheme(scheme), statistics_of(40)).dequantize()
        assert values[2].abs().max() == 0
        assert bool(values.isfinite().all())

    @pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (4, 33)])
    def test_small_and_odd_shapes(self, name: str, shape: tuple[int, int]) -> None:
        found = quantizer_named(name).quantize(weights(*shape), parse_scheme("int4-g32"), statistics_of(shape[1]))
        assert found.dequantize().shape == shape

    def test_columns_without_input_keep_their_nearest_value(self, name: str) -> None:
        matrix, statistics = weights(6, 40), statistics_of(40)
        statistics.hessian[11] = 0
        statistics.hessian[:, 11] = 0
        found = quantizer_named(name).quantize(matrix, parse_scheme("int6"), statistics).dequantize()
        assert (found - matrix)[:, 11].abs().max() < matrix.abs().max() / 16

    def test_fewer_positions_than_columns(self, name: str) -> None:
        found = quantizer_named(name).quantize(weights(6, 64), parse_scheme("int3-g16"), statistics_of(64, count=5)).dequantize()
        assert (found - weights(6, 64)).abs().max() < weights(6, 64).abs().max()

    def test_one_moment_per_group_of_rows(self, name: str) -> None:
        matrix, statistics = weights(6, 40), statistics_of(40, groups=3)
        found = quantizer_named(name).quantize(matrix, parse_scheme("int3-g16"), statistics).dequantize()
        for group in range(3):
            alone = Statistics(statistics.hessian[group], statistics.count)
            part = quantizer_named(name).quantize(matrix[2 * group : 2 * group + 2], parse_scheme("int3-g16"), alone).dequantize()
            torch.testing.assert_close(found[2 * group : 2 * group + 2], part)

    def test_scale_of_the_inputs_does_not_matter(self, name: str) -> None:
        statistics = statistics_of(40)
        values = [
            quantizer_named(name).quantize(weights(6, 40), parse_scheme("int4"), Statistics(statistics.hessian * factor, 400)).dequantize()
            for factor in (1.0, 2.0**60, 2.0**-60)
        ]
        assert torch.equal(values[0], values[1])
        assert torch.equal(values[0], values[2])

    def test_weights_that_are_not_finite_are_refused(self, name: str) -> None:
        matrix = weights(6, 40)
        matrix[0, 0] = torch.nan
        with pytest.raises(NumericsError, match="does not fit fp16"):
            quantizer_named(name).quantize(matrix, parse_scheme("int4"), statistics_of(40))


@pytest.mark.parametrize("name", INFORMED)
class TestInformedQuantizers:
    @pytest.mark.parametrize("scheme", KINDS)
    def test_output_error_of_each_row_is_at_most_that_of_rounding(self, name: str, scheme: str) -> None:
        matrix, statistics = weights(6, 40), statistics_of(40)
        rounded = quantizer_named("rtn").quantize(matrix, parse_scheme(scheme))
        found = quantizer_named(name).quantize(matrix, parse_scheme(scheme), statistics)
        assert bool((error(found, matrix, statistics) <= error(rounded, matrix, statistics) * (1 + 1e-5)).all())

    def test_without_statistics_they_do_as_mse_does(self, name: str) -> None:
        found, expected = (quantizer_named(one).quantize(weights(8, 64), parse_scheme("int4-g32")) for one in (name, "mse"))
        assert torch.equal(found.dequantize(), expected.dequantize())

    def test_rows_that_no_input_reached_are_quantized_well_all_the_same(self, name: str) -> None:
        matrix, statistics = weights(6, 40), statistics_of(40, groups=2)
        statistics.hessian[1] = 0
        found = quantizer_named(name).quantize(matrix, parse_scheme("int4"), statistics).dequantize()
        rounded = quantizer_named("rtn").quantize(matrix, parse_scheme("int4")).dequantize()
        assert (found - matrix)[3:].square().sum() <= (rounded - matrix)[3:].square().sum()

    def test_the_error_is_less_than_that_of_the_best_clipping_by_weight(self, name: str) -> None:
        matrix, statistics = weights(32, 128), statistics_of(128, count=4000)
        found, blind = (
            output_errors(
                quantizer_named(one).quantize(matrix, parse_scheme("int3-g32"), statistics).dequantize() - matrix, statistics.hessian
            )
            for one in (name, "mse")
        )
        assert found.sum() < (1.0 if name == "act" else 0.6) * blind.sum()
