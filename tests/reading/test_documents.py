"""YAML, JSON and CSV of strangers: what is read, and what is refused with one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.errors import ConfigError, FormatError
from mpq.limits import DOCUMENT_BYTES, NESTING
from mpq.reading.documents import Document, csv_rows, json_document, json_value, read_bytes, read_json, read_text, read_yaml, yaml_document

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def yaml(text: str) -> Any:
    return yaml_document(text, name="a.yaml", error=FormatError, remedy="correct it").value


def refused_yaml(text: str) -> str:
    with pytest.raises(FormatError) as error:
        yaml(text)
    return str(error.value)


def refused_json(content: bytes) -> str:
    with pytest.raises(FormatError) as error:
        json_document(content, name="a.json", error=FormatError, remedy="make it again")
    return str(error.value)


@given(VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert json_value(json.dumps(value).encode()) == value


def test_yaml_gives_plain_values() -> None:
    assert yaml("a: 1\nb: [x, 2.5, true, null]\nc: {d: '1'}\n") == {"a": 1, "b": ["x", 2.5, True, None], "c": {"d": "1"}}


@pytest.mark.parametrize(
    "text", ["a: &x 1\nb: *x\n", "a: &x [1]\n", "a: !!python/object/apply:os.system [ls]\n", "a: !x 1\n", "a: 1\na: 2\n"]
)
def test_yaml_that_hides_what_it_says_is_refused_with_its_line(text: str) -> None:
    assert refused_yaml(text).startswith("a.yaml is not YAML that mpq reads: line ")


def test_nesting_is_bounded_in_both() -> None:
    deep = "[" * (NESTING + 1) + "]" * (NESTING + 1)
    assert f"{NESTING} levels" in refused_yaml(deep)
    assert refused_json(deep.encode()) == f"a.json is not JSON that mpq reads (nested more than {NESTING} levels deep): make it again"
    most = "[" * NESTING + "]" * NESTING
    assert json_value(most.encode()) == yaml(most)
    assert refused_json(b"[" * 100_000) and refused_yaml("[" * 100_000)  # noqa: PT018


def test_brackets_within_strings_are_not_nesting() -> None:
    text = "[" * 100 + '\\"' + "{" * 100
    assert json_value(json.dumps({"a": text}).encode()) == {"a": text}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": NaN}', "NaN"),
        (b"[1e999]", "1e999"),
        (b"[9223372036854775808]", "takes more than 64 bits"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_other_readers_would_take_differently_is_refused(content: bytes, reason: str) -> None:
    assert reason in refused_json(content)


def test_the_edges_of_64_bits_are_read() -> None:
    assert json_value(b"[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]
    assert math.isclose(json_value(b"[1e308]")[0], 1e308)


def test_a_file_is_read_up_to_a_limit_and_refused_beyond(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, error=ConfigError, absent="name another", most=10) == b"x" * 10
    with pytest.raises(ConfigError, match=r"a has more than 9 bytes, which is too large to be right: name another$"):
        read_bytes(path, error=ConfigError, absent="name another", most=9)
    with path.open("wb") as file:
        file.truncate(DOCUMENT_BYTES + 1)
    with pytest.raises(FormatError, match="too large to be right"):
        read_json(path, error=FormatError, absent="name another", remedy="make it again")


def test_what_is_missing_or_not_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read .*none: No such file or directory; name another$"):
        read_yaml(tmp_path / "none", error=FormatError, absent="name another", remedy="")
    with pytest.raises(FormatError, match="it is not a file name; name another"):
        read_text(Path("a\0b"), error=FormatError, absent="name another")
    (tmp_path / "b").write_bytes(b"ab\xff")
    with pytest.raises(FormatError, match=r"b is not text in UTF-8 \(byte 2\): name another$"):
        read_text(tmp_path / "b", error=FormatError, absent="name another")


def test_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "a", error=FormatError, absent="", remedy="").value == {"a": 1}
    assert json_value(b"\xef\xbb\xbf[1]") == [1]


def test_a_document_says_where_something_is() -> None:
    document = yaml_document("a: 1\nb:\n  c: [1,\n   2]\n", name="p.yaml", error=ConfigError, remedy="correct it")
    assert document.place("b", "c", 1) == "p.yaml, line 4"
    assert str(document.refuse("too small", "a")) == "p.yaml, line 1: too small"
    assert isinstance(document.refuse("x"), ConfigError)
    assert Document({}, "h.json").place("a") == "h.json"


def rows(text: str) -> list[tuple[int, dict[str, str]]]:
    return list(csv_rows(text, Document(None, "a.csv", remedy="correct it")))


def test_csv_rows_come_by_column_with_their_lines() -> None:
    assert rows("layer, scheme ,ms\n\n a,int4, 1.5\nb,int8\n") == [
        (3, {"layer": "a", "scheme": "int4", "ms": "1.5"}),
        (4, {"layer": "b", "scheme": "int8", "ms": ""}),
    ]
    assert rows("") == []


def test_csv_with_another_delimiter_and_whole_rows() -> None:
    document = Document(None, "a.tsv", remedy="correct it")
    assert list(csv_rows("a\tb\n1, 2\t3\n", document, delimiter="\t", exact=True)) == [(2, {"a": "1, 2", "b": "3"})]
    with pytest.raises(FormatError, match=r"^a.tsv, line 2: '1' is not a row of 2 fields: correct it$"):
        list(csv_rows("a\tb\n1\n", document, delimiter="\t", exact=True))


@pytest.mark.parametrize(
    ("text", "message"), [("a,a\n1,2\n", "names a column twice"), ("a,b\n1,2,3\n", "line 2: '1,2,3' is not a row of 2")]
)
def test_csv_that_is_no_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        rows(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested more than 32 levels deep"),
        ('{"a":' * 100_000, "nested more than 32 levels deep"),
        ('{"a": ' + "9" * 100_000 + "}", "takes more than 64 bits"),
        ('{"a": 1e999}', "is out of range"),
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
        ('"\\ud83d"', "surrogates not allowed"),
    ],
)
def test_json_is_bounded_in_the_same_way(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        json_value(text.encode())


def test_brackets_in_texts_are_no_depth() -> None:
    assert json_value(b'{"a": "' + b"[" * 1000 + b'"}') == {"a": "[" * 1000}


def test_a_file_of_more_bytes_than_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FormatError, match="has more than 16,777,216 bytes, which is too large to be right: name a plan"):
        read_yaml(tmp_path / "large.yaml", error=FormatError, absent="name a plan", remedy="make it again")
