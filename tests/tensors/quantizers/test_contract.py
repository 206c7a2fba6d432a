"""What every quantizer must keep, whatever its method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpq.errors import NumericsError, UsageError
from mpq.formats.registry import formats, names
from mpq.formats.scheme import parse_scheme
from mpq.tensors.hessian import output_errors
from mpq.tensors.quantized import QuantizedWeight, unpack_weight
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named

FREE = [name for name in names("levels") if formats()[name].fixed_group is None]
SCHEMES = [
    *(f"{name}-g16-s8" for name in ("int2", "int4", "int4-asym", "int8", *FREE)),
    *(f"int{bits}-g16" for bits in range(2, 9)),
    *(f"int{bits}{rest}" for bits in (2, 4, 8) for rest in ("", "-asym", "-asym-g16")),
    *names("levels"),
    *(f"{name}-g16" for name in FREE),
]
INFORMED = [name for name in QUANTIZERS if QUANTIZERS.kind(name).needs_statistics]


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


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("scheme", SCHEMES)
class TestEveryScheme:
    def test_round_trip_through_packing_is_exact(self, name: str, scheme: str) -> None:
        matrix = weights(5, 37)
        found = quantizer_named(name).quantize(matrix, parse_scheme(scheme), statistics_of(37))
        again = unpack_weight(found.pack(), parse_scheme(scheme), (5, 37))
        assert torch.equal(again.dequantize(), found.dequantize())

    def test_stored_as_the_scheme_says(self, name: str, scheme: str) -> None:
        found = quantizer_named(name).quantize(weights(5, 37), parse_scheme(scheme), statistics_of(37))
        shapes = {stored.part: stored.shape for stored in parse_scheme(scheme).stored((5, 37))}
        assert {part: tuple(tensor.shape) for part, tensor in found.pack().items()} == shapes


@pytest.mark.parametrize("name", QUANTIZERS)
class TestEveryQuantizer:
    def test_same_inputs_same_codes(self, name: str) -> None:
        one, other = (quantizer_named(name).quantize(weights(8, 64), parse_scheme("int3-g32"), statistics_of(64)) for _ in range(2))
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.dequantize(), other.dequantize())

    def test_asked_again_in_any_order_gives_the_same(self, name: str) -> None:
        quantizer, kept, another = quantizer_named(name), statistics_of(64), statistics_of(64, seed=5)
        first = quantizer.quantize(weights(8, 64), parse_scheme("int4-g32"), kept)
        quantizer.quantize(weights(8, 64), parse_scheme("int2"), another)
        assert torch.equal(quantizer.quantize(weights(8, 64), parse_scheme("int4-g32"), kept).dequantize(), first.dequantize())

    def test_the_matrix_is_left_as_it_was(self, name: str) -> None:
        matrix = weights(8, 64)
        quantizer_named(name).quantize(matrix, parse_scheme("int4"), statistics_of(64))
        assert torch.equal(matrix, weights(8, 64))

    @pytest.mark.parametrize("scheme", ["int2", "int4-asym-g16", "int8", "ternary", "nf4-g16", "mxfp4", "fp8-e5m2"])
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

    def test_floating_point_is_a_cast(self, name: str) -> None:
        found = quantizer_named(name).quantize(weights(6, 40), parse_scheme("bf16"), statistics_of(40))
        assert torch.equal(found.dequantize(), weights(6, 40).bfloat16().float())

    def test_weights_that_are_not_finite_are_refused(self, name: str) -> None:
        matrix = weights(6, 40)
        matrix[0, 0] = torch.nan
        with pytest.raises(NumericsError, match="does not fit fp16"):
            quantizer_named(name).quantize(matrix, parse_scheme("int4"), statistics_of(40))


@pytest.mark.parametrize("name", INFORMED)
class TestInformedQuantizers:
    @pytest.mark.parametrize("scheme", SCHEMES)
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


def test_unknown_quantizers_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        quantizer_named("gpqt")
    assert str(caught.value) == f"'gpqt' is not a quantizer: use one of {', '.join(QUANTIZERS)}"
