"""What an export should hold and compute."""

import math

import torch

from mpq.data.checksums import checksum
from mpq.export.fingerprint import VALUES, kept_values, layer_facts
from mpq.export.stored.base import values
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import inputs
from tests.small import schemes


def test_values_are_kept_at_evenly_spaced_places() -> None:
    assert kept_values(torch.arange(10.0).reshape(2, 5)) == [float(value) for value in range(10)]
    kept = kept_values(torch.arange(64_001, dtype=torch.float64))
    assert (len(kept), kept[0], kept[-1]) == (VALUES, 0.0, 64_000.0)
    assert kept_values(torch.zeros(0)) == []


def test_values_that_are_not_finite_or_mean_impossible_are_none() -> None:
    assert kept_values(torch.tensor([1.0, math.nan, math.inf, -math.inf, -1e9, -9999.0])) == [1.0, None, None, None, None, -9999.0]


def test_values_have_the_digits_of_float32() -> None:
    assert kept_values(torch.tensor([1 / 3], dtype=torch.float64)) == [0.33333333]


def test_a_packed_weight_has_a_checksum_of_each_part() -> None:
    (scheme,) = schemes("int4-asym-g8")
    weight = quantizer_named("rtn").quantize(inputs(4, 16), scheme)
    found = layer_facts("a", weight, ["MatMul"], [0.5, 1.0])
    assert weight.scales is not None
    assert weight.zero_points is not None
    scales = weight.scales.float()
    assert (found.place, found.scheme, found.matrix, found.uses, found.output) == ("a", "int4-asym-g8", [4, 16], ["MatMul"], [0.5, 1.0])
    assert (found.weights, found.codes, found.scales) == (checksum(weight.dequantize()), checksum(weight.codes), checksum(scales))
    assert found.row_scales == checksum(scales.sort(dim=1).values)
    assert found.all_scales == checksum(scales.flatten().sort().values)
    assert found.zero_points == checksum(weight.zero_points)


def test_values_have_no_codes_and_no_scales() -> None:
    found = layer_facts("a", values(inputs(4, 16)), [])
    assert (found.scheme, found.weights) == ("fp32", checksum(inputs(4, 16)))
    assert (found.codes, found.scales, found.row_scales, found.all_scales, found.zero_points) == (None,) * 5
