"""What every format must keep, and what a new one needs: nothing but its own file."""

import importlib
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpq.formats
from mpq.errors import SchemeError
from mpq.formats import registry
from mpq.formats.base import FloatStorage, Format
from mpq.formats.grammar import scheme_pattern, scheme_schema
from mpq.formats.integers import FORMATS as INTEGERS
from mpq.formats.minifloats import minifloat_levels
from mpq.formats.registry import formats, integers_by_bits, names
from mpq.formats.scheme import parse_scheme

EVERY = list(formats().values())
LEVELS = [formats()[name] for name in names("levels")]
TAILS = ("", "-asym", "-g2", "-g32", "-g1", "-g0", "-g128-s8", "-s8", "-asym-g16", "-asym-g16-s8", "-g32-asym", "-g", "-s8-g16")


def title(element: Format) -> str:
    return element.name


def readable(text: str) -> bool:
    try:
        parse_scheme(text)
    except SchemeError:
        return False
    return True


@pytest.mark.parametrize("element", EVERY, ids=title)
@pytest.mark.parametrize("tail", TAILS)
def test_the_pattern_of_the_schemas_takes_what_can_be_read(element: Format, tail: str) -> None:
    assert bool(re.search(scheme_pattern(), element.name + tail)) == readable(element.name + tail)


@pytest.mark.parametrize("text", ["int9", "nf5", "int44", "fp8", "mxfp", "4", "", "int4 g32", "ternary2"])
def test_the_pattern_refuses_what_is_no_format(text: str) -> None:
    assert not re.search(scheme_pattern(), text)
    assert not readable(text)


def test_the_description_names_every_format() -> None:
    words = set(re.findall(r"[a-z0-9-]+", scheme_schema()["description"]))
    assert [name for name in formats() if name not in words] == []


@pytest.mark.parametrize("element", LEVELS, ids=title)
def test_levels_are_distinct_numbers_with_the_largest_finite(element: Format) -> None:
    used = [level for level in element.levels if not math.isnan(level)]
    assert all(map(math.isfinite, used))
    assert len(set(used)) >= len(used) - 1, "zero alone may have two codes"
    assert element.largest == max(used) > 0


@pytest.mark.parametrize("element", LEVELS, ids=title)
def test_levels_looked_up_by_cells_lie_within_the_cells(element: Format) -> None:
    if element.cells:
        assert max(map(abs, element.levels)) <= 1


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


@pytest.mark.parametrize("element", INTEGERS, ids=title)
def test_integers_try_both_signs_and_the_scale_that_uses_every_code(element: Format) -> None:
    fullest = (2 ** (element.bits - 1) - 1) / 2 ** (element.bits - 1)
    assert {-1.0, fullest, -fullest} < set(element.clip_ratios)
    assert 1.0 not in element.clip_ratios, "the search starts there"
    assert sorted(map(abs, element.clip_ratios), reverse=True) == list(map(abs, element.clip_ratios))


def test_integers_are_known_by_their_bits() -> None:
    assert {bits: f"int{bits}" for bits in range(2, 9)}.items() <= integers_by_bits().items()


def test_bit_patterns_follow_sign_exponent_and_mantissa() -> None:
    assert minifloat_levels(2, 1)[:8] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert minifloat_levels(3, 0, power=1)[:8] == [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert math.copysign(1, minifloat_levels(2, 1)[8]) == -1


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


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file `five.py` beside those of `mpq/formats`, and the registry read anew, before and after."""
    monkeypatch.setattr(mpq.formats, "__path__", [*mpq.formats.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_found", {})
    yield tmp_path / "five.py"
    sys.modules.pop("mpq.formats.five", None)


def test_a_format_in_a_new_file_is_found(one_more: Path) -> None:
    one_more.write_text(
        "from mpq.formats.base import Format\n"
        "FORMATS = (Format('five', 3, 'levels', 'five levels', levels=(-1.0, -0.5, 0.0, 0.5, 1.0), radix=5),)\n"
    )
    importlib.invalidate_caches()
    assert "five" in names("levels")
    assert list(formats())[-3:] == list(names("floats"))
    assert formats()["five"].code_bytes(7) == 3  # three digits to a byte
    assert re.search(scheme_pattern(), "five-g16")


def test_two_formats_of_one_name_are_refused(one_more: Path) -> None:
    one_more.write_text("from mpq.formats.base import Format\nFORMATS = (Format('int4', 4, 'levels', '', levels=(0.0, 1.0)),)\n")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="two formats have one name"):
        formats()
