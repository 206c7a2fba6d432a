import gzip
import json
from pathlib import Path

import pytest

from mpq.errors import DataError
from mpq.models.inputs.documents import read_documents, spread_documents

ROWS = [{"split": "train", "text": "a"}, {"split": "test", "text": "b"}, {"split": "test", "text": " "}]


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d", json.dumps(ROWS)),
        ("d.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("d.csv", "split,text\ntrain,a\ntest,b\ntest,\n"),
    ],
)
def test_documents_are_those_of_records_and_selected_by_a_field(tmp_path: Path, name: str, content: str) -> None:
    for packed in (content.encode(), gzip.compress(content.encode()), content.encode("utf-16")):
        path = write(tmp_path, name, packed)
        assert list(read_documents(path, "d")) == ["a", "b"]
        assert list(read_documents(path, "d", only=("split", "test"))) == ["b"]
        with pytest.raises(DataError, match="no line has split=dev; its values are train, test"):
            list(read_documents(path, "d", only=("split", "dev")))


def test_plain_text_is_one_document_or_one_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "d.txt", b"a b\n\nc\n")
    assert list(read_documents(path, "d")) == ["a b\n\nc\n"]
    assert list(read_documents(path, "d", by_line=True)) == ["a b", "c"]
    with pytest.raises(DataError, match=r"^d is plain text and has no field 'x': leave --text-field out$"):
        list(read_documents(path, "d", field="x"))


def test_notes_say_how_records_are_read(tmp_path: Path) -> None:
    notes: list[str] = []
    assert list(read_documents(write(tmp_path, "d.csv", b"review,id\na,1\n"), "d", notes=notes)) == ["a"]
    assert notes == ["text is read from 'review'"]


def test_records_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^d holds no text: give at least one document$"):
        list(read_documents(write(tmp_path, "d", b"[]"), "d"))


def test_some_documents_are_spread_over_the_file_in_the_order_in_which_they_are_chosen(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path, "d.jsonl", "\n".join(json.dumps({"text": f"{number:02d}"}) for number in range(10)).encode())
    found = spread_documents(path, "d", enough=lambda count, _: count == 4, notes=notes)
    assert found == [(0, "00"), (6, "06"), (2, "02"), (8, "08")]
    assert notes == ["4 of 10 documents, spread evenly over the file"]
    assert spread_documents(path, "d", enough=lambda _, characters: characters > 2) == found[:2]
    lines = write(tmp_path, "d.txt", b"a\n\nb\nc\n")
    assert spread_documents(lines, "d", enough=lambda *_: False, by_line=True) == [(0, "a"), (1, "b"), (2, "c")]
    assert spread_documents(lines, "d", enough=lambda *_: True) == [(0, "a\n\nb\nc\n")]
    with pytest.raises(DataError, match=r"^d holds no text: give at least one document$"):
        spread_documents(write(tmp_path, "e", b"[]"), "d", enough=lambda *_: False)


def test_more_records_than_may_be_held_are_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.models.inputs.documents.TEXT_BYTES", 50)
    path = write(tmp_path, "d.jsonl", b"\n".join([b'{"text": "abc"}'] * 9))
    notes: list[str] = []
    assert len(spread_documents(path, "d", enough=lambda *_: False, notes=notes)) == 3
    assert notes == ["only the first 3 records are read, 50 characters"]
