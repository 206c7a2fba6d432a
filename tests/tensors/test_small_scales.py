import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.levels import levels_of
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.scales import storable
from mpq.tensors.small_scales import from_bytes, to_bytes

SMALL = parse_scheme("int4-g16-s8")


def scales(exponent: int, spread: float, seed: int) -> Tensor:
    """Of both signs, [6, 9], around 2**exponent."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 9, generator=generator) * torch.exp(spread * torch.randn(6, 9, generator=generator)) * 2.0**exponent


@settings(deadline=None)
@given(st.integers(-24, 10), st.floats(0, 4), st.integers(0, 99))
def test_scales_are_read_back_to_the_bit(exponent: int, spread: float, seed: int) -> None:
    kept = storable(scales(exponent, spread, seed).clamp(-60000, 60000), SMALL)
    stored = to_bytes(kept)
    assert kept.dtype == torch.float16
    assert (stored.dtype, tuple(stored.shape)) == (torch.uint8, (6, 10))
    assert torch.equal(from_bytes(stored), kept)
    assert bool((kept != 0).all())
    assert torch.equal(storable(kept.float(), SMALL), kept)


@given(st.integers(-8, 8), st.integers(0, 99))
def test_a_scale_is_off_by_at_most_a_127th_of_the_largest_of_its_row(exponent: int, seed: int) -> None:
    wanted = scales(exponent, 0.3, seed)
    largest = wanted.abs().amax(1, keepdim=True)
    off = (storable(wanted, SMALL).float() - wanted).abs()
    assert bool(((off <= largest / 127) | (wanted.abs() < largest / 127)).all())  # the smallest number is 1, for no scale is zero
    assert bool((off <= largest / 63).all())


def test_a_row_of_zeros_beside_a_row_of_large_weights() -> None:
    matrix = torch.cat([torch.zeros(1, 32), torch.full((1, 32), 3000.0), torch.full((1, 32), 1e-6)])
    found = quantizer_named("rtn").quantize(matrix, SMALL).dequantize()
    assert found[0].abs().max() == 0
    torch.testing.assert_close(found[1], matrix[1], rtol=0.1, atol=0)
    assert found[2].abs().max() < 1e-4


def test_groups_of_half_the_size_are_better_at_the_same_bytes() -> None:
    matrix = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    errors = {}
    for text in ("int4-g32", "int4-g16-s8"):
        found = quantizer_named("mse").quantize(matrix, parse_scheme(text))
        errors[text] = float((found.dequantize() - matrix).square().sum())
    assert parse_scheme("int4-g16-s8").stored_bits((64, 512)) <= 1.004 * parse_scheme("int4-g32").stored_bits((64, 512))
    assert errors["int4-g16-s8"] < 0.85 * errors["int4-g32"]


def test_normal_levels_lose_less_on_normal_weights() -> None:
    matrix = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    for bits in range(3, 8):
        normal, even = (
            float((quantizer_named("mse").quantize(matrix, parse_scheme(f"{name}{bits}-g64")).dequantize() - matrix).square().sum())
            for name in ("nl", "int")
        )
        assert normal < 0.95 * even


def test_normal_levels_rise_from_minus_one_through_zero() -> None:
    for bits in range(3, 8):
        table = levels_of(f"nl{bits}").table
        assert (len(table), float(table[0]), float(table[2 ** (bits - 1)])) == (2**bits, -1.0, 0.0)
        assert bool((table.diff() > 0).all())
        assert torch.equal(table[1 : 2 ** (bits - 1)], -table[2 ** (bits - 1) + 1 :].flip(0))
