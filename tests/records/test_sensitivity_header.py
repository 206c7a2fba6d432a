from pathlib import Path
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.formats.scheme import parse_scheme
from mpq.reading.documents import Document
from mpq.records.sensitivity_header import Rest, SensitivityHeader, header_in
from tests.small import linear, table

PATH = Path("t.jsonl")
MADE = table([linear("a", 4, 32), linear("b", 2, 64)], {"a": {"int4": 1.0, "int8": 0.5}, "b": {"nf4-g16": 2.0}}).header


def read(**changes: Any) -> SensitivityHeader:
    return header_in(Document(MADE.to_dict() | changes, "t.jsonl, line 1", remedy="run `mpq analyze` again"), PATH)


def test_a_header_is_read_back_from_its_json_object() -> None:
    assert read() == MADE
    noted = read(notes=["layer c was never reached"], versions={"torch": "2.13"})
    assert (noted.notes, noted.versions) == (("layer c was never reached",), {"torch": "2.13"})


def test_its_json_object_begins_with_the_version_and_ends_with_the_layers() -> None:
    found = MADE.to_dict()
    assert list(found) == ["mpq_sensitivity", "model", "data", "settings", "rest", "notes", "versions", "layers"]
    assert found["mpq_sensitivity"] == 1
    assert found["rest"] == {"header_bytes": 500, "data_bytes": 256, "weights": 40, "original_bytes": 160}
    assert [layer["candidates"] for layer in found["layers"]] == [["int4", "int8"], ["nf4-g16"]]
    assert MADE.rest == Rest(500, 256, 40, 160)


def test_another_version_is_refused_before_anything_else() -> None:
    with pytest.raises(FormatError, match="is a sensitivity file of version 2, this mpq reads up to 1: upgrade mpq"):
        read(mpq_sensitivity=2, layers="later versions may say it otherwise")


def test_damage_is_refused_with_its_place() -> None:
    broken = [MADE.to_dict()["layers"][0] | {"candidates": ["int4", "int99"]}]
    for changes, reason in (
        ({"layers": broken}, "t.jsonl, line 1: unknown scheme 'int99'"),
        ({"layers": MADE.to_dict()["layers"][:1] * 2}, "t.jsonl, line 1: the layer 'a' appears twice"),
        ({"rest": {"weights": 1}}, "t.jsonl, line 1: rest lacks the key 'header_bytes'"),
        ({"notes": "none"}, "t.jsonl, line 1: notes is 'none': give a list"),
    ):
        with pytest.raises(FormatError) as caught:
            read(**changes)
        assert str(caught.value).startswith(reason)


def test_candidates_are_schemes_by_layer() -> None:
    assert read().candidates == {"a": (parse_scheme("int4"), parse_scheme("int8")), "b": (parse_scheme("nf4-g16"),)}
