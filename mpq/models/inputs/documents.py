"""Documents for language models, from plain text or from records: JSONL, JSON, CSV, TSV, Parquet, Arrow, folders of `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mpq.data.spread import spread_order
from mpq.data.tables import rows_of, table_files
from mpq.data.text_files import read_text_file
from mpq.errors import DataError
from mpq.limits import TEXT_BYTES
from mpq.models.inputs.conversations import Documents
from mpq.models.inputs.text_records import text_records

_VALUES = 5  # values of a field that a message lists
Records = Iterable[tuple[int, dict[str, Any]]]


def read_documents(
    path: Path,
    source: str,
    *,
    tokenizer: Any = None,
    only: tuple[str, str] | None = None,
    field: str | None = None,
    by_line: bool = False,
    notes: list[str] | None = None,
) -> Iterator[str]:
    """The documents of a table or of records in text, or a text file as one document; with `by_line`, one document per line.

    Args:
        path: the file, or a folder of tables.
        source: how the user wrote it, for messages.
        tokenizer: the tokenizer with the chat template; None if there is none.
        only: a field and its value; other records are skipped. For a folder of tables, its split.
        field: the field with the text; None looks for one (`conversations.py`).
        by_line: whether each line of plain text is a document.
        notes: receives notes on how records were read.

    Raises:
        DataError: if the file is none of these, a record is damaged, or there is no text.
    """
    records, unit = _opened(path, source, only, notes)
    if isinstance(records, str):
        yield from _plain(records, source, only, field, by_line=by_line)
        return
    yield from _documents(records, Documents(tokenizer, field, source, unit=unit, notes=notes), source)


def spread_documents(
    path: Path,
    source: str,
    *,
    enough: Callable[[int, int], bool],
    tokenizer: Any = None,
    only: tuple[str, str] | None = None,
    field: str | None = None,
    by_line: bool = False,
    notes: list[str] | None = None,
) -> list[tuple[int, str]]:
    """Documents spread evenly over the file, each with its place in it, in the order in which they are chosen (`data/spread.py`).

    Args:
        path: like in `read_documents`, and so are the others.
        source: how the user wrote it, for messages.
        enough: whether no more are needed, from the number of documents and of their characters so far.
        tokenizer: the tokenizer with the chat template; None if there is none.
        only: a field and its value; other records are skipped.
        field: the field with the text; None looks for one.
        by_line: whether each line of plain text is a document.
        notes: receives notes on how records were read, and how many were chosen.

    Raises:
        DataError: like `read_documents`.
    """
    notes = [] if notes is None else notes
    records, unit = _opened(path, source, only, notes)
    made = Documents(tokenizer, field, source, unit=unit, notes=notes)
    rows: Sequence[tuple[int, Any]]
    rows = list(enumerate(_plain(records, source, only, field, by_line=by_line))) if isinstance(records, str) else _held(records, notes)
    found: list[tuple[int, str]] = []
    characters = 0
    for place in spread_order(len(rows)):
        number, row = rows[place]
        document = row if isinstance(row, str) else made.of(row, number)
        if document.strip():
            found.append((place, document))
            characters += len(document)
        if enough(len(found), characters):
            break
    if not found:
        raise DataError(f"{source} holds no text: give at least one document")
    if len(found) < len(rows):
        notes.append(f"{len(found)} of {len(rows)} documents, spread evenly over the file")
    return found


def _opened(path: Path, source: str, only: tuple[str, str] | None, notes: list[str] | None) -> tuple[Records | str, str]:
    """The chosen records of a table or of text, or plain text as it is; and what a record is called."""
    split = only[1] if only is not None and only[0] == "split" and path.is_dir() else None
    files = table_files(path, source, split=split)
    if files is not None:
        records, unit = rows_of(files, source), "row"
    else:
        text, unit = read_text_file(path, source), "line"
        parsed = text_records(text, source, name=path.name, notes=notes)
        if parsed is None:
            return text, unit
        records = iter(parsed)
    return (records if only is None or split is not None else _selected(records, source, only)), unit


def _held(records: Records, notes: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """All records, or the first ones up to the allowed number of characters."""
    held: list[tuple[int, dict[str, Any]]] = []
    room = TEXT_BYTES
    for record in records:
        room -= len(repr(record[1]))
        if room < 0:
            notes.append(f"only the first {len(held)} records are read, {TEXT_BYTES:,} characters")
            break
        held.append(record)
    return held


def _documents(records: Records, made: Documents, source: str) -> Iterator[str]:
    """The documents of all records that have text."""
    seen = taken = 0
    for number, record in records:
        document = made.of(record, number)
        taken += len(document)
        if taken > TEXT_BYTES:
            raise DataError(
                f"{source} has more than {TEXT_BYTES:,} characters of text, too many to read completely: limit them with --num-samples"
            )
        if document.strip():
            seen += 1
            yield document
    if not seen:
        raise DataError(f"{source} holds no text: give at least one document")


def _plain(text: str, source: str, only: tuple[str, str] | None, field: str | None, *, by_line: bool) -> list[str]:
    """Plain text as one document, or its lines."""
    if only is not None:
        raise DataError(f"{source} selects lines by '{only[0]}', but the file is plain text: leave out '?{only[0]}={only[1]}'")
    if field is not None:
        raise DataError(f"{source} is plain text and has no field '{field}': leave --text-field out")
    documents = [document for document in (text.splitlines() if by_line else [text]) if document.strip()]
    if not documents:
        raise DataError(f"{source} holds no text: give at least one document")
    return documents


def _selected(records: Records, source: str, only: tuple[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    (field, value), found, fields = only, dict[str, None](), list[str]()
    chosen = 0
    for number, record in records:
        if str(record.get(field)) == value:
            chosen += 1
            yield number, record
        elif field in record and len(found) < _VALUES:
            found[str(record[field])] = None
        fields = fields or list(record)
    if not chosen:
        known = f"its values are {', '.join(found)}" if found else f"the fields are {', '.join(fields)}"
        raise DataError(f"{source}: no line has {field}={value}; {known}")
