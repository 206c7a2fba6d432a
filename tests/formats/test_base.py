"""What a format derives from its facts, and what it refuses."""

import math
from typing import Any

import pytest

from mpq.formats.base import FloatStorage, Format
from mpq.formats.registry import formats

EVERY = list(formats().values())


def title(element: Format) -> str:
    return element.name


@pytest.mark.parametrize("element", [each for each in EVERY if each.storage is None], ids=title)
def test_a_run_of_codes_fills_whole_bytes_and_none_shorter_does(element: Format) -> None:
    run = element.codes_per_run
    assert element.code_bytes(3 * run) == 3 * element.code_bytes(run)
    exact = math.log2(element.radix) if element.radix else element.bits
    assert element.code_bytes(run) * 8 >= exact * run > (element.code_bytes(run) - 1) * 8


def test_linear_formats_are_those_whose_values_are_a_line() -> None:
    assert [formats()[name].linear for name in ("nf4", "nl3", "fp4-e2m1", "fp8-e5m2", "bf16")] == [None] * 5
    assert formats()["int1"].linear == (2.0, -1.0)
    assert formats()["ternary"].linear == (1.0, -1.0)
    assert formats()["int5"].linear == (1.0, -16.0)


def test_a_wider_float_holds_a_narrower_one_and_16_bit_formats_do_not_hold_each_other() -> None:
    stored = {name: formats()[name].storage for name in ("fp16", "bf16", "fp32")}
    holds = {(a, b) for a, one in stored.items() for b, other in stored.items() if one and other and one.holds(other)}
    assert holds == {("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("fp32", "fp16"), ("fp32", "bf16")}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "My Format"}, "cannot be written in a scheme"),
        ({"levels": ()}, "levels need `levels`"),
        ({"kind": "integers"}, "levels need `levels`"),
        ({"storage": FloatStorage("F16", "float16", 5, 10)}, "floats need `storage`"),
        ({"bits": 9}, "codes of 9 bits: use 1 to 8"),
        ({"levels": (-1.0, 0.0, 1.0)}, "3 levels, more than its codes can name"),
        ({"fixed_group": 16}, "needs `free_groups`"),
    ],
)
def test_a_format_that_cannot_be_is_refused_when_made(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"name": "int1", "bits": 1, "kind": "levels", "summary": "", "levels": (-1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        Format(**right | wrong)
