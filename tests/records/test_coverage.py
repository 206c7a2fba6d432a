from typing import Any

import pytest

from mpq.records.coverage import Coverage, coverage_lines

FACTS: dict[str, int] = {
    "layers": 3,
    "searched_bytes": 900,
    "left_out": 4,
    "left_out_bytes": 100,
    "outputs": 1,
    "outputs_returned": 2,
    "positions": 29,
    "positions_given": 32,
    "calibration": 6,
    "held_out": 2,
}


def test_the_line_names_what_was_seen_with_its_share() -> None:
    assert Coverage(**FACTS).line == (
        "coverage: 3 layers searched, 90.0% of the model's bytes; 4 tensors left out, 10.0%; 1 of 2 outputs compared; "
        "90.6% of the positions counted; 6 calibration, 2 held-out samples"
    )
    assert coverage_lines({"coverage": Coverage(**FACTS).to_dict()}) == [Coverage(**FACTS).line]
    assert coverage_lines({"coverage": {**FACTS, "__class__": 1, "later": 2}}) == [Coverage(**FACTS).line]
    assert coverage_lines({"cost": {}}) == coverage_lines(None) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"left_out": 0, "left_out_bytes": 0}, "100% of the model's bytes; 0 tensors left out, 0%"),
        ({"searched_bytes": 999_999, "left_out_bytes": 1}, "over 99.9% of the model's bytes; 4 tensors left out, under 0.1%"),
        ({"positions": 0, "positions_given": 0}, "all positions counted"),
    ],
)
def test_all_and_nothing_are_said_only_of_all_and_nothing(changes: dict[str, Any], words: str) -> None:
    assert words in Coverage(**{**FACTS, **changes}).line
