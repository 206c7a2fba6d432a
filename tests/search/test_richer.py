"""Estimates of candidates that were not measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.formats.scheme import parse_scheme
from mpq.records.sensitivity import Sensitivity
from mpq.search.richer import Offer, richer, squared_error, with_estimates
from mpq.tensors.quantizers.registry import quantizer_named
from tests.small import linear, table

INT4, INT8, NL4, EC4 = map(parse_scheme, ("int4", "int8", "nl4-g32-s8", "ec4"))


def measured(factor: float = 3.0) -> Sensitivity:
    """Two layers whose errors are in proportion to the squared error of normal weights."""
    errors = {each.name: {str(s): factor * squared_error(s, 256) for s in (INT4, INT8)} for each in LAYERS}
    return table(LAYERS, errors)


LAYERS = [linear("a", 64, 256), linear("b", 64, 256)]


@pytest.mark.parametrize("name", ["int4", "int3-g32", "int4-asym-g32", "nl4", "nl5-g32-s8", "nf4-g64", "ternary", "int8"])
def test_squared_errors_are_those_of_quantized_normal_weights(name: str) -> None:
    scheme, weight = parse_scheme(name), torch.randn(96, 256, generator=torch.Generator().manual_seed(3))
    found = quantizer_named("mse").quantize(weight, scheme, None).dequantize()
    assert squared_error(scheme, 256) == pytest.approx(float((found - weight).square().mean()), rel=0.1)


def test_coded_formats_are_a_quarter_of_a_bit_from_the_limit() -> None:
    assert squared_error(EC4, 256) == pytest.approx(2 ** (-2 * 3.75), rel=0.01)


def test_an_estimate_scales_the_nearest_measured_errors() -> None:
    given = measured()
    more = with_estimates(given, {"a": (NL4, INT8)})
    assert more is not None
    assert more.header.candidates == {"a": (INT4, INT8, NL4), "b": (INT4, INT8)}
    assert more.mean("a", NL4) == pytest.approx(3 * squared_error(NL4, 256))
    assert more.mean("b", INT8) == given.mean("b", INT8)
    given.errors["a", INT8] = 10 * given.errors["a", INT8]  # the ratio of squared errors now grows toward it
    between = with_estimates(given, {"a": (parse_scheme("int6"),)})
    assert between is not None
    own = squared_error(parse_scheme("int6"), 256)
    places = [np.log(squared_error(s, 256)) for s in (INT8, INT4)]
    assert between.mean("a", parse_scheme("int6")) == pytest.approx(3 * own * np.exp(np.interp(np.log(own), places, [np.log(10), 0])))


def test_nothing_is_added_where_nothing_is_new_or_measured() -> None:
    assert with_estimates(measured(), {"a": (INT4, INT8)}) is None
    zeros = table(LAYERS, {each.name: {"int4": 0.0, "int8": 0.0} for each in LAYERS})
    assert with_estimates(zeros, {"a": (NL4,)}) is None


def test_offers_that_win_clearly_are_named_with_their_ratio() -> None:
    given, budget = measured(), Budget("4.6bits")
    offers: dict[str, Offer] = {
        "worse": dict.fromkeys(("a", "b"), (parse_scheme("int3"),)),
        "coded": dict.fromkeys(("a", "b"), (EC4, parse_scheme("ec4.5"))),
    }
    (found,) = richer(given, budget, SearchSettings(), offers)
    assert found.name == "coded"
    assert found.ratio == pytest.approx(squared_error(parse_scheme("ec4.5"), 256) / squared_error(INT4, 256), rel=0.01)
    assert richer(given, budget, SearchSettings(candidates={"*": ("4",)}), offers) == []
    assert richer(given, budget, replace(SearchSettings(), pins={"*": INT4}), offers) == []
