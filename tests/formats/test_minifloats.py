import math

import pytest
import torch

from mpq.formats.minifloats import minifloat_levels
from mpq.formats.registry import formats


def test_bit_patterns_follow_sign_exponent_and_mantissa() -> None:
    assert minifloat_levels(2, 1)[:8] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert minifloat_levels(3, 0, power=1)[:8] == [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert math.copysign(1, minifloat_levels(2, 1)[8]) == -1


@pytest.mark.parametrize(("name", "dtype", "power"), [("fp8-e4m3", torch.float8_e4m3fn, 8), ("fp8-e5m2", torch.float8_e5m2, 15)])
def test_the_levels_of_8_bits_are_those_of_torch_over_a_power_of_two(name: str, dtype: torch.dtype, power: int) -> None:
    expected = torch.arange(256, dtype=torch.uint8).view(dtype).float().tolist()
    for level, known in zip(formats()[name].levels, expected, strict=True):
        assert level * 2**power == known if math.isfinite(known) else math.isnan(level)


def test_six_bits_go_in_steps_of_an_eighth_then_a_quarter_then_a_half() -> None:
    levels = formats()["fp6-e2m3"].levels
    assert levels[:16] == tuple(step / 8 for step in range(16))
    assert levels[16:32] == (*(2 + step / 4 for step in range(8)), *(4 + step / 2 for step in range(8)))
    assert levels[32:] == tuple(-level for level in levels[:32])
