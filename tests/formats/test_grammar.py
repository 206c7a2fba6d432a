"""The pattern of the JSON schemas takes what can be read, and nothing else."""

import re

import pytest

from mpq.errors import SchemeError
from mpq.formats.base import Format
from mpq.formats.grammar import scheme_pattern, scheme_schema
from mpq.formats.registry import formats
from mpq.formats.scheme import parse_scheme

TAILS = ("", "-asym", "-g2", "-g32", "-g1", "-g0", "-g128-s8", "-s8", "-asym-g16", "-asym-g16-s8", "-g32-asym", "-g", "-s8-g16")


def readable(text: str) -> bool:
    try:
        parse_scheme(text)
    except SchemeError:
        return False
    return True


@pytest.mark.parametrize("element", formats().values(), ids=lambda each: each.name)
@pytest.mark.parametrize("tail", TAILS)
def test_the_pattern_of_the_schemas_takes_what_can_be_read(element: Format, tail: str) -> None:
    assert bool(re.search(scheme_pattern(), element.name + tail)) == readable(element.name + tail)


@pytest.mark.parametrize(
    "text",
    ["int9", "nf5", "ec0.5", "ec9", "ec8.5", "ec4.125", "ec4.", "ec4.5-g32", "int44", "fp8", "mxfp", "4", "", "int4 g32", "ternary2"],
)
def test_the_pattern_refuses_what_is_no_format(text: str) -> None:
    assert not re.search(scheme_pattern(), text)
    assert not readable(text)


@pytest.mark.parametrize("text", ["ec1", "ec4.5", "ec4.50", "ec7.99", "ec8", "ec8.00", " ec3.25 "])
def test_the_pattern_takes_every_rate_of_coded_formats(text: str) -> None:
    assert re.search(scheme_pattern(), text)
    assert readable(text)


def test_the_description_names_every_format() -> None:
    words = set(re.findall(r"[a-z0-9-]+", scheme_schema()["description"]))
    assert [name for name in formats() if name not in words] == []
