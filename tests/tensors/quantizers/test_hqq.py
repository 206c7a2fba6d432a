from __future__ import annotations

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import quantizer_named
from tests.tensors.quantizers.making import weights


def sparsity_loss(name: str, matrix: torch.Tensor, scheme: str) -> float:
    """The sum that the method minimises, naively: |error|^0.7."""
    found = quantizer_named(name).quantize(matrix, parse_scheme(scheme)).dequantize()
    return float((found - matrix).double().abs().pow(0.7).sum())


@pytest.mark.parametrize("scheme", ["int2-g16", "int3-g32", "int4", "int4-asym-g32", "nf4-g32"])
def test_errors_are_sparser_than_those_of_least_squares(scheme: str) -> None:
    matrix = weights(32, 128)
    assert sparsity_loss("hqq", matrix, scheme) < sparsity_loss("mse", matrix, scheme)


def test_an_outlier_is_given_up_for_the_many() -> None:
    matrix = weights(1, 64)
    matrix[0, 5] = 1.2
    others = torch.arange(64) != 5
    errors = {
        name: (quantizer_named(name).quantize(matrix, parse_scheme("int3")).dequantize() - matrix)[0, others].abs().mean()
        for name in ("mse", "hqq")
    }
    assert errors["hqq"] < 0.9 * errors["mse"]
