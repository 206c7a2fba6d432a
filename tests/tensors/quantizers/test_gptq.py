from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.hessian import conditioned, output_errors
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers import gptq
from mpq.tensors.quantizers.act import ActivationEnergy, energy_scales
from mpq.tensors.quantizers.base import Statistics, nearest
from mpq.tensors.quantizers.gptq import GPTQ, Descent
from tests.tensors.quantizers.making import statistics_of, weights


def naive(matrix: Tensor, scheme: Scheme, statistics: Statistics) -> Tensor:
    """GPTQ as in the paper's Algorithm 1, one row and one column at a time; the codes."""
    hessian = conditioned(statistics.hessian, statistics.count, 0.01)[0].double()
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor = torch.linalg.cholesky(hessian[order][:, order].inverse(), upper=True)
    scales = energy_scales(matrix, scheme, statistics.hessian)
    codes = torch.zeros(matrix.shape, dtype=torch.uint8)
    for row, values in enumerate(matrix.double()):
        rest = values[order].clone()
        for at, column in enumerate(order.tolist()):
            group = 0 if scheme.group_size is None else column // scheme.group_size
            scale, zero = scales.scale[row, group].double(), scales.zero_point[row, group].double()
            code = ((rest[at] / scale).round() + zero).clamp(0, 2**scheme.bits - 1)
            codes[row, column] = int(code)
            rest[at + 1 :] -= factor[at, at + 1 :] * (rest[at] - (code - zero) * scale) / factor[at, at]
    return codes


@pytest.mark.parametrize("scheme", ["int4-g32", "int3", "int4-asym-g32"])
def test_codes_are_those_of_the_algorithm_in_the_paper(scheme: str) -> None:
    matrix, statistics = weights(8, 150), statistics_of(150, count=2000)
    found = GPTQ().round(matrix, parse_scheme(scheme), statistics)
    same = (found.codes == naive(matrix, parse_scheme(scheme), statistics)).float().mean()
    assert same > 0.995  # a tie or a rounding error in float32 may turn a code, and those after it


def test_many_rows_are_worked_on_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, statistics, grouped = weights(24, 40), statistics_of(40), statistics_of(40, groups=4)
    whole = [Descent().quantize(matrix, parse_scheme("int4-g16"), one).dequantize() for one in (statistics, grouped)]
    monkeypatch.setattr(gptq, "_CHUNK", 5 * 40)
    parts = [Descent().quantize(matrix, parse_scheme("int4-g16"), one).dequantize() for one in (statistics, grouped)]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def conditioned_error(weight: QuantizedWeight, matrix: Tensor, statistics: Statistics) -> float:
    return float(output_errors(weight.dequantize() - matrix, conditioned(statistics.hessian, statistics.count, 0.01)).sum())


def test_every_sweep_lowers_the_error() -> None:
    matrix, statistics = weights(16, 96), statistics_of(96)
    errors = [
        conditioned_error(Descent(sweeps=sweeps).round(matrix, parse_scheme("int3-g32"), statistics), matrix, statistics)
        for sweeps in (0, 1, 2, 4)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


def test_fitting_the_scales_lowers_the_error_of_gptq() -> None:
    matrix, statistics, scheme = weights(16, 96), statistics_of(96), parse_scheme("int3-g32")
    codes = naive(matrix, scheme, statistics)
    scales = energy_scales(matrix, scheme, statistics.hessian)
    unfitted = QuantizedWeight(scheme, (16, 96), codes, scales.scale)
    fitted = GPTQ().round(matrix, scheme, statistics)
    assert conditioned_error(fitted, matrix, statistics) < conditioned_error(unfitted, matrix, statistics)


def test_independent_inputs_leave_nothing_to_compensate() -> None:
    matrix, statistics = weights(8, 64), Statistics(torch.eye(64), 10**9)
    scheme = parse_scheme("int4-g32")
    plain = nearest(matrix, scheme, energy_scales(matrix, scheme, statistics.hessian))
    assert torch.equal(GPTQ().round(matrix, scheme, statistics).codes, plain.codes)


def test_a_matrix_much_wider_than_high_is_not_factorized(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, statistics, scheme = weights(4, 96), statistics_of(96, count=2000), parse_scheme("int3-g32")
    mean = {name: conditioned_error(quantizer.quantize(matrix, scheme, statistics), matrix, statistics) for name, quantizer in EACH.items()}
    monkeypatch.setattr(gptq, "_LITTLE_WORK", 0.0)
    assert all(quantizer.remark((24, 96)) == "" for quantizer in EACH.values())  # as much as four times the sweeps
    monkeypatch.setattr(gptq, "inverse_factor", None)
    for name, quantizer in EACH.items():
        expected = "factorizing their second moment would take 5e+06 operations, 6 times as many as the descent itself"
        assert quantizer.remark((4, 96)) == f"rows of 96 weights: {name} starts from the nearest codes, because {expected}"
        found = conditioned_error(type(quantizer)().quantize(matrix, scheme, statistics), matrix, statistics)
        assert found < 1.1 * mean[name]
        assert found < 0.7 * conditioned_error(ActivationEnergy().quantize(matrix, scheme, statistics), matrix, statistics)


def test_a_second_moment_is_factorized_according_to_the_rows_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, each, scheme = weights(24, 96), statistics_of(96, groups=8), parse_scheme("int3-g32")
    monkeypatch.setattr(gptq, "_LITTLE_WORK", 0.0)
    monkeypatch.setattr(gptq, "inverse_factor", None)
    assert Descent().remark((24, 96)) == ""
    assert Descent().remark((3, 96))
    alone = [Descent().round(matrix[3 * at : 3 * at + 3], scheme, Statistics(each.hessian[at], each.count)).codes for at in range(8)]
    assert torch.equal(Descent().round(matrix, scheme, each).codes, torch.cat(alone))


def test_more_sweeps_than_those_in_place_of_a_factorization_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(gptq, "_LITTLE_WORK", 0.0)
    monkeypatch.setattr(gptq, "descend", lambda *_, sweeps, codes: made.append(sweeps))
    for sweeps in (0, 3, 6, 8):
        Descent(sweeps=sweeps).round(weights(4, 96), parse_scheme("int3-g32"), statistics_of(96))
    assert made == [6, 6, 6, 8]


EACH: dict[str, GPTQ] = {"gptq": GPTQ(), "descent": Descent()}


def test_the_bound_on_the_factorization_follows_from_the_size_alone() -> None:
    for shape in ((64, 4096), (4096, 11_008), (4096, 16_384)):
        assert Descent().remark(shape) == ""
    for shape in ((64, 8192), (10, 16_384), (4096, 32_768)):
        assert Descent().remark(shape).startswith(f"rows of {shape[1]:,} weights: descent starts from the nearest codes")
