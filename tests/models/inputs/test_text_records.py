import json
from typing import Any

import pytest

from mpq.errors import DataError
from mpq.models.inputs.text_records import text_records

ROWS = [{"text": "one, two"}, {"text": "three"}]
PER_LINE = "write one object per line"
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


def read(text: str, name: str = "") -> list[dict[str, Any]] | None:
    found = text_records(text, "d", name=name)
    return None if found is None else [record for _, record in found]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, ROWS)),
        "\n\n".join(map(json.dumps, ROWS)) + "\n\n",
        "\r\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.0", "rows": ROWS}, indent=1),
        json.dumps(["one, two", "three"]),
    ],
)
def test_json_in_each_form_gives_the_same_records(text: str) -> None:
    assert read(text) == ROWS


def test_lists_of_messages_are_chats() -> None:
    assert read(json.dumps(CHAT)) == [{"messages": CHAT}]
    assert read(json.dumps([CHAT, CHAT])) == [{"messages": CHAT}] * 2
    assert read("\n".join([json.dumps(CHAT)] * 2)) == [{"messages": CHAT}] * 2
    assert read(json.dumps({"messages": CHAT})) == [{"messages": CHAT}]


def test_one_record_with_a_list_of_objects_beside_its_text_is_a_record() -> None:
    record = {"text": "a", "entities": [{"start": 1}]}
    assert read(json.dumps(record)) == [record]


@pytest.mark.parametrize(
    ("text", "name", "rows"),
    [
        ('text,label\n"a, b",1\nc,0\n', "", [{"text": "a, b", "label": "1"}, {"text": "c", "label": "0"}]),
        ("text;label\na, b;1\n", "", [{"text": "a, b", "label": "1"}]),
        ("prompt\tresponse\na\tb, c\n", "", [{"prompt": "a", "response": "b, c"}]),
        ('review\n"d, e"\n', "x.csv", [{"review": "d, e"}]),
        ("review\tid\nd, e\t1\n", "x.TSV.gz", [{"review": "d, e", "id": "1"}]),
        ("review\tid\nd, e\t1\n", "x.csv", [{"review": "d, e", "id": "1"}]),
    ],
)
def test_tables_are_recognized_by_known_columns_or_their_name(text: str, name: str, rows: list[dict[str, str]]) -> None:
    assert read(text, name) == rows


@pytest.mark.parametrize(
    "text",
    [
        "Roses, violets\nand, so on\n",
        "Once upon a time, there was\na dog\n",
        "[Verse 1] La\n",
        "[[File:x.png]]\n",
        '"Hello."\nHo',
        "{x} is\n",
        "",
        "text\na\n",
    ],
)
def test_text_that_only_resembles_records_is_plain(text: str) -> None:
    assert read(text) is None


def test_plain_text_that_looks_like_a_table_gets_a_note() -> None:
    notes: list[str] = []
    assert text_records("Hello,World\nBye,Moon\n", "d", name="d.txt", notes=notes) is None
    assert notes == ["read as plain text, although it looks like a table of Hello, World: for a table, call the file .csv or .tsv"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (json.dumps(ROWS)[:-4], "", f"d, line 1: not JSON (column 33: Unterminated string starting at); {PER_LINE}, or a list of objects"),
        (json.dumps(ROWS)[:-1], "", "d, line 1: not JSON (a list goes on without a comma, or does not end); save it again"),
        (json.dumps(ROWS) + "\nmore", "", "d is a list followed by more text: write one object per line, or one list of objects"),
        ('{"text": x}\n{"text": "y"}', "", "d, line 1: not JSON (Expecting value: line 1 column 10 (char 9)); write one object per line"),
        ('{"a": "x"}\n[1]', "", "d, line 2: [1] is not a JSON object; write one object per line"),
        ('[\n {"a": "x"},\n 7\n]', "", "d, line 3: 7 is not a JSON object; write one object per line"),
        (json.dumps({"a": ROWS, "b": ROWS}), "", "d is one object with several lists of objects (a, b): save one of them as a file"),
        ('{"text": {"0": "a"}}', "", f'd is one object by column or key, not by record: {PER_LINE}, as pandas does with orient="records"'),
        ("1,2\n1,2\n", "d.csv", "d does not name its columns in the first line ('1', '2'): add a line with names, such as text and label"),
        ("a,b\n1\n", "d.csv", "d, line 2: '1' is not a row of 2 fields: quote fields that contain the delimiter, or give JSONL"),
    ],
)  # fmt: skip
def test_damaged_records_are_refused_with_their_place(text: str, name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text, name)
    assert str(caught.value) == message


def test_nesting_and_numbers_of_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^d, line 1: not JSON \(maximum recursion depth exceeded"):
        read('{"a":' * 100_000)
    monkeypatch.setattr("mpq.models.inputs.text_records.JSON_NODES", 3)
    assert read(json.dumps(ROWS)) == ROWS
    with pytest.raises(DataError, match="d has more than 3 JSON objects and lists: give a part of it"):
        read(json.dumps([*ROWS, {}]))
