import json
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.records.sensitivity_file import header_line, record_line

NAME = "t.jsonl, line 7"
DAMAGED = "the file is damaged: run `mpq analyze` again"
FIGURES = {"layer": "a", "scheme": "int4", "errors": [0.5, None, -1e-9]}


def read(value: Any) -> dict[str, Any]:
    return dict(record_line(json.dumps(value).encode(), NAME))


ALL_ELSEWHERE = {"finish": {"unseen_rows": {"positions": {"rows": 512, "reached": 13, "share": 1.0, "adds": {"int8": 0.0}}}}}


def refused(line: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        record_line(line, NAME)
    return str(caught.value)


def test_figures_come_as_they_stand_without_what_is_not_given() -> None:
    assert read(FIGURES) == FIGURES
    assert read(FIGURES | {"first": 0, "products": [1.0]}) == FIGURES | {"first": 0, "products": [1.0]}
    assert read(FIGURES | {"crc": "00000000"}) == FIGURES  # keys of later versions do not count


@pytest.mark.parametrize(
    "line",
    [
        {"finish": {"cost": {"seconds": 1.5}, "parts": [4]}},
        {"finish": {}},
        ALL_ELSEWHERE,
        {"blend": 0.25, "draws": 4},
        {"blend": 1, "draws": 1},
    ],
)
def test_the_last_lines_come_as_they_stand(line: dict[str, Any]) -> None:
    assert read(line) == line


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"errors": [0.5, "x"]}, "errors[1] is 'x': give a number"),
        ({"errors": [1e151]}, "errors[0] is 1e+151: give a number of at most 1e+150;"),
        ({"errors": 0.5}, "errors is 0.5: give a list"),
        ({"first": -1}, "first is -1: give a whole number of 0 or more"),
        ({"first": 1.5}, "first is 1.5: give a whole number"),
        ({"products": [None]}, "products[0] is empty: give a number"),
        ({"scheme": 4}, "scheme is 4: give a scheme, for example int4 or int4-g32"),
        ({"layer": None}, "layer is empty: give text"),
    ],
)
def test_damaged_figures_are_refused_with_their_place(change: dict[str, Any], reason: str) -> None:
    found = refused(json.dumps(FIGURES | change).encode())
    assert found.startswith(f"{NAME}: {reason}")
    assert found.endswith(f"; {DAMAGED}")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"blend": 1.5, "draws": 4}, "blend is 1.5: give a number of at most 1"),
        ({"blend": 0.5}, "it lacks the key 'draws'"),
        ({"blend": 0.5, "draws": 0}, "draws is 0: give a whole number of 1 or more"),
        ({"finish": {"cost": {"seconds": "long"}}}, "finish.cost.seconds is 'long': give a number"),
        ({"finish": {"check": {"additive": {"rank": 1.0, "bias": 800.0, "spread": None}}}}, "finish.check.additive.bias is 800.0: give"),
        ({}, "it lacks the key 'layer'"),
    ],
)
def test_other_damaged_lines_are_refused_with_their_place(line: dict[str, Any], reason: str) -> None:
    assert refused(json.dumps(line).encode()).startswith(f"{NAME}: {reason}")


def test_lines_that_are_no_object_are_refused() -> None:
    assert refused(b"[1]") == f"{NAME}: not a JSON object; {DAMAGED}"
    assert refused(b"{").startswith(f"{NAME} is not JSON that mpq reads (line 1, column 2: ")
    with pytest.raises(FormatError, match="line 1: not a JSON object"):
        header_line(b"null", "t.jsonl, line 1")


def test_the_first_line_is_not_yet_validated_for_its_version_comes_first() -> None:
    assert header_line(b'{"mpq_sensitivity": 99}', "t.jsonl, line 1").value == {"mpq_sensitivity": 99}
