"""Records in text: one JSON object per line, a JSON list of objects, objects one after another, or rows of CSV and TSV.

    {"text": ...}                    one object per line (JSONL), or pretty-printed, one after another
    [{"text": ...}, ...]             a list; of texts or of chats too, which become {"text": ...} and {"messages": ...}
    {"data": [{"text": ...}, ...]}   one object with one list of objects
    prompt,response                  CSV or TSV, whose first line names the columns

JSON is recognized by how it begins. Any text could be a table, so a table is one that is called .csv or .tsv, or text whose lines all have
as many fields as the first, if that names a known field such as "text".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mpq.errors import DataError
from mpq.limits import JSON_NODES
from mpq.models.inputs.conversations import known_fields
from mpq.models.inputs.turns import is_chat
from mpq.reading.documents import Document, csv_rows
from mpq.shown import listed, shown, shown_bare

_JSON = re.compile(r'\s*(\{\s*["}]|\[\s*\[?\s*[{"\]])')  # not "[[", which begins pages of wikis
_SPACE = re.compile(r"\s*")
_TABLES = re.compile(r"\.(?P<kind>csv|tsv)(\.gz)?", re.IGNORECASE)
_COLUMN = re.compile(r"[^\W\d][\w.-]*( [\w.-]+){0,2}")
_LONGEST_NAME = 40
_LISTED = 4
Record = dict[str, Any]
_PER_LINE = "write one object per line"


def text_records(text: str, source: str, *, name: str = "", notes: list[str] | None = None) -> Iterator[tuple[int, Record]] | None:
    """The records of a text, each with its line; None for plain text.

    Args:
        text: the contents of a file.
        source: how the user wrote it, for messages.
        name: the name of the file, which may say that it is a table.
        notes: receives a note if plain text looks like a table.

    Raises:
        DataError: while reading, if a record is damaged.
    """
    if _JSON.match(text):
        if text.count("[") + text.count("{") > JSON_NODES:
            raise DataError(f"{source} has more than {JSON_NODES:,} JSON objects and lists: give a part of it")
        return _lines(text, source) if _begins_with_a_line(text) else _as_one_chat(_stream(text, source))
    found = _TABLES.search(name)
    delimiter = "\t" if found is not None and found["kind"].lower() == "tsv" else _delimiter(text)
    if found is None and not known_fields(row := _first_row(text, delimiter)):
        if row and notes is not None:
            columns = listed([shown_bare(column) for column in row], _LISTED)
            notes.append(f"read as plain text, although it looks like a table of {columns}: for a table, call the file .csv or .tsv")
        return None
    return _rows(text, source, delimiter)


def _begins_with_a_line(text: str) -> bool:
    """Whether the first of several lines is an object or a chat; a single line may be one with all records."""
    first, _, rest = text.strip().partition("\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return bool(rest) and first.rstrip().endswith("}") and rest.lstrip().startswith("{")  # a damaged line
    return bool(rest) and (isinstance(value, dict) or is_chat(value))


def _as_one_chat(records: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, Record]]:
    """The records; those that are messages of one chat become its record."""
    first = next(records, None)
    if first is None:
        return
    if "content" in first[1] and is_chat([first[1]]) and not known_fields(first[1]):
        yield first[0], {"messages": [first[1], *(record for _, record in records)]}
        return
    yield first
    yield from records


def _lines(text: str, source: str) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{source}, line {number}: not JSON ({error}); {_PER_LINE}") from error
        yield number, _record(value, source, number)


def _stream(text: str, source: str) -> Iterator[tuple[int, Record]]:
    """The elements of one list, or values one after another."""
    decoder, at, line = json.JSONDecoder(), _after_space(text, 0), 1
    in_list = text[at] == "["
    at = _after_space(text, at + in_list)
    start = 0
    while at < len(text) and not (in_list and text[at] == "]"):
        line, start = line + text.count("\n", start, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            number = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise DataError(f"{source}, line {number}: not JSON ({reason}); {_PER_LINE}, or a list of objects") from error
        at = _after_space(text, at)
        alone = not in_list and start == _after_space(text, 0) and at == len(text)
        yield from _wrapped(value, source) if alone else [(line, _record(value, source, line))]
        if in_list and at < len(text) and text[at] == ",":
            at = _after_space(text, at + 1)
        elif in_list and text[at : at + 1] != "]":
            raise DataError(f"{source}, line {line}: not JSON (a list goes on without a comma, or does not end); save it again")
    if in_list and _after_space(text, at + 1) < len(text):
        raise DataError(f"{source} is a list followed by more text: {_PER_LINE}, or one list of objects")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _wrapped(value: Any, source: str) -> Iterator[tuple[int, Record]]:
    """The records of a file with one object: those of its only list of objects, else the object itself."""
    record = _record(value, source, 1)
    lists = [name for name, inner in record.items() if isinstance(inner, list) and inner and all(isinstance(one, dict) for one in inner)]
    if known_fields(record) or not record:
        yield 1, record
    elif len(lists) > 1:
        names = ", ".join(map(shown_bare, lists))
        raise DataError(f"{source} is one object with several lists of objects ({names}): save one of them as a file")
    elif lists and not is_chat(record[lists[0]]):
        yield from ((number, _record(one, source, number, "entry")) for number, one in enumerate(record[lists[0]], start=1))
    elif not lists and all(isinstance(inner, (dict, list)) for inner in record.values()):
        raise DataError(f'{source} is one object by column or key, not by record: {_PER_LINE}, as pandas does with orient="records"')
    else:
        yield 1, record


def _record(value: Any, source: str, number: int, unit: str = "line") -> Record:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list) and is_chat(value):
        return {"messages": value}
    raise DataError(f"{source}, {unit} {number}: {shown(value)} is not a JSON object; {_PER_LINE}")


def _delimiter(text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    return next((one for one in ("\t", ",", ";") if one in first), ",")


def _first_row(text: str, delimiter: str) -> Record:
    """The first row if the first line has two or more short names, and every other line as many fields; else an empty one."""
    names = text.lstrip("\n").partition("\n")[0].rstrip("\r").split(delimiter)
    if len(names) < 2 or not _are_columns(names):
        return {}
    try:
        rows = [row for _, row in csv_rows(text, _document(""), delimiter=delimiter, exact=True)]
    except DataError:
        return {}
    return dict(rows[0]) if rows else {}


def _are_columns(names: list[str]) -> bool:
    plain = [name[1:-1] if name[:1] == name[-1:] == '"' and len(name) > 1 else name for name in names]
    return len(set(plain)) == len(plain) and all(len(name) <= _LONGEST_NAME and _COLUMN.fullmatch(name) for name in plain)


def _rows(text: str, source: str, delimiter: str) -> Iterator[tuple[int, Record]]:
    """The rows of a table; every value is text."""
    document = _document(source)
    columns: list[str] = []
    for number, row in csv_rows(text, document, delimiter=delimiter, exact=True):
        columns = columns or list(row)
        if not _are_columns(columns):
            names = listed([shown(name, 30) for name in columns], _LISTED)
            raise DataError(
                f"{source} does not name its columns in the first line ({names}): add a line with names, such as text and label"
            )
        yield number, dict(row)


def _document(source: str) -> Document:
    return Document(None, source, DataError, "quote fields that contain the delimiter, or give JSONL")
