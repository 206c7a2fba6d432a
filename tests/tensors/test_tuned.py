import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.common_rows import merged
from mpq.tensors.levels import to_codes
from mpq.tensors.quantized import QuantizedWeight, spread, unpack_weight
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.scales import SMALLEST_SCALE
from mpq.tensors.tuned import TunedWeight

SCHEMES = ("int2", "int4-g8", "int3-asym", "int3-asym-g8", "int8", "nf4-g8", "int4-g8-s8", "nl4-g8-s8")


def matrix(rows: int = 6, columns: int = 21) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def made(text: str, quantizer: str = "rtn") -> QuantizedWeight:
    return quantizer_named(quantizer).quantize(matrix(), parse_scheme(text))


@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("original", [True, False])
def test_it_begins_as_the_quantizer_left_it(text: str, original: bool) -> None:
    weight = made(text)
    begun = TunedWeight(weight, matrix() if original else None).quantized()
    assert torch.equal(begun.codes, weight.codes)
    assert torch.equal(begun.dequantize(), weight.dequantize())


@pytest.mark.parametrize("text", SCHEMES)
def test_gradients_by_scales_are_those_of_finite_differences(text: str) -> None:
    weight = made(text)
    tuned, gradient = TunedWeight(weight, None), matrix() ** 2
    tuned.take(gradient.clone(), weight)
    assert tuned.change.grad is not None
    assert weight.scales is not None
    step = 2**-6  # finite differences of a linear function are exact, but for rounding
    for row, group in ((0, 0), (5, weight.scales.shape[1] - 1)):
        moved = weight.scales.clone()
        moved[row, group] *= 1 + step
        changed = QuantizedWeight(weight.scheme, weight.matrix, weight.codes, moved, weight.zero_points)
        share = (moved.float() / weight.scales.float() - 1)[row, group]
        expected = ((changed.dequantize() - weight.dequantize()) * gradient).sum() / share
        torch.testing.assert_close(tuned.change.grad[row, group], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", SCHEMES)
def test_scales_that_go_down_the_gradient_of_a_squared_error_lower_it_and_stay_fp16(text: str) -> None:
    target, weight = matrix() * 1.1, made(text)
    tuned = TunedWeight(weight, None)
    adam = torch.optim.Adam([tuned.change], lr=5e-3)
    now = tuned.quantized()
    for _ in range(60):
        tuned.take(2 * (now.dequantize() - target), now)
        adam.step()
        now = tuned.quantized()
    assert (now.dequantize() - target).square().sum() < 0.9 * (weight.dequantize() - target).square().sum()
    assert torch.equal(now.codes, weight.codes)
    assert now.scales is not None
    assert torch.equal(unpack_weight(now.pack(), now.scheme, now.matrix).dequantize(), now.dequantize())
    assert now.scales.dtype == torch.float16


@pytest.mark.parametrize("text", ["int2", "int4-g8", "int3-asym-g8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_codes_move_against_the_gradient_and_stay_in_their_range(text: str, sign: int) -> None:
    weight = made(text)
    tuned = TunedWeight(weight, matrix())
    now = weight
    assert tuned.positions is not None
    descent = torch.optim.SGD([tuned.positions], lr=0.2)
    for _ in range(5):
        assert now.scales is not None
        tuned.take(torch.full(now.matrix, float(sign)) / now.dequantize().abs().max(), now)
        assert tuned.positions.grad is not None
        tuned.positions.grad.sign_()
        descent.step()
        now = tuned.quantized()
    assert weight.scales is not None
    direction = -sign * spread(weight.scales.float().sign(), weight.scheme, weight.matrix[1])
    expected = (weight.codes.float() + direction).clamp(0, 2**weight.scheme.bits - 1)
    assert bool(((now.codes.float() - weight.codes.float()) * direction >= 0).all())
    assert torch.equal(now.codes.float()[expected == weight.codes], weight.codes.float()[expected == weight.codes])
    assert not torch.equal(now.codes, weight.codes)


def test_codes_of_a_table_stay() -> None:
    tuned = TunedWeight(made("nf4-g8"), matrix())
    assert tuned.positions is None


def test_scales_keep_their_sign_and_fit_fp16_however_far_they_are_pushed() -> None:
    scales = torch.tensor([[60000.0], [-60000.0], [SMALLEST_SCALE]]).half()
    weight = QuantizedWeight(parse_scheme("int4"), (3, 2), torch.full((3, 2), 9, dtype=torch.uint8), scales)
    tuned = TunedWeight(weight, None)
    for push in (1e9, -1e9):
        tuned.change.fill_(push)
        found = tuned.quantized().scales
        assert found is not None
        assert bool(found.isfinite().all())
        assert torch.equal(found.sign(), scales.sign())


@pytest.mark.parametrize("text", ["nf4-g8", "int1", "ternary", "nl4-g8-s8"])
def test_codes_of_tables_stay_until_they_are_moved(text: str) -> None:
    weight = made(text)
    tuned = TunedWeight(weight, matrix(), tables=True)
    assert torch.equal(tuned.quantized().codes, weight.codes)
    assert tuned.positions is not None
    tuned.positions.add_(10.0)
    assert torch.equal(tuned.quantized().codes, to_codes(torch.full(weight.matrix, 10.0), weight.scheme))


def test_the_step_of_a_coded_weight_moves_for_all_rows_and_its_codes_stay() -> None:
    target = torch.randn(64, 48, generator=torch.Generator().manual_seed(3))
    target[5] *= 90  # its step is larger
    weight = quantizer_named("mse").quantize(target, parse_scheme("ec6"))
    tuned = TunedWeight(weight, target)
    assert tuned.positions is None
    assert torch.equal(tuned.quantized().dequantize(), weight.dequantize())
    tuned.take(2 * (weight.dequantize() - 1.25 * target), weight)
    assert tuned.change.grad is not None
    assert tuned.change.grad.shape == (1, 1)
    assert tuned.change.grad.item() < 0
    tuned.change.data.fill_(0.25)
    now = tuned.quantized()
    assert torch.equal(now.codes, weight.codes)
    torch.testing.assert_close(now.dequantize(), 1.25 * weight.dequantize(), rtol=2e-3, atol=0)
    assert torch.equal(unpack_weight(now.pack(), now.scheme, now.matrix).dequantize(), now.dequantize())


@pytest.mark.parametrize("text", ["int4", "int4-g8", "int3-asym-g8", "nf4-g8", "ec4"])
def test_rows_that_are_alike_stay_alike(text: str) -> None:
    original = torch.cat([matrix(), matrix()[:1] + 0.01 * torch.randn(6, 21, generator=torch.Generator().manual_seed(1))])
    common = torch.arange(12) >= 6
    weight = quantizer_named("rtn").quantize(merged(original, common), parse_scheme(text)).shared(common)
    tuned = TunedWeight(weight, original, tables=True)
    optimizer = torch.optim.Adam([each for each in (tuned.change, tuned.positions) if each is not None], lr=0.05)
    for step in range(5):
        tuned.take(torch.randn(12, 21, generator=torch.Generator().manual_seed(step)), tuned.quantized())
        optimizer.step()
    now = tuned.quantized()
    assert not torch.equal(now.dequantize(), weight.dequantize())
    assert bool((now.dequantize()[6:] == now.dequantize()[6]).all())
    assert torch.equal(unpack_weight(now.pack(), now.scheme, now.matrix).dequantize(), now.dequantize())
