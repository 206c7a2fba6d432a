"""YAML, JSON and CSV that mpq did not write: read once, here, within the limits of `limits.py`. No torch.

What comes out is made of dict with text as keys, list, str, int of 64 bits, finite float, bool and None, nested a few levels at most.
`reading/validate.py` gives it types.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mpq.errors import FormatError, MpqError
from mpq.files import open_file
from mpq.limits import DOCUMENT_BYTES, JSON_NODES, NESTING, NUMBER_TEXT
from mpq.reading.yaml_events import YamlProblem, yaml_line, yaml_value
from mpq.shown import shown

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
_LARGEST = 2**63


@dataclass(frozen=True)
class Document:
    """A document as it was read.

    Args:
        value: its contents.
        name: what messages call it; "" where they should not.
        error: the type of errors about it.
        remedy: what they advise.
        text: the YAML, from which line numbers are found; empty for JSON, whose lines say little.
    """

    value: Any
    name: str
    error: type[MpqError] = FormatError
    remedy: str = "make it again"
    text: str = field(default="", repr=False)

    def place(self, *keys: str | int) -> str:
        """Where a value is, for messages: "plan.yaml, line 7"."""
        line = yaml_line(self.text, keys) if self.text else None
        return self.name if line is None else f"{self.name}, line {line}"

    def refuse(self, reason: str, *keys: str | int) -> MpqError:
        """An error about a place in the document; `keys` lead to it from the top."""
        place = self.place(*keys)
        return self.error(f"{place}: {reason}" if place else reason)


def read_bytes(path: Path, *, error: type[MpqError], absent: str, most: int = DOCUMENT_BYTES) -> bytes:
    """The contents of a file of at most `most` bytes; `absent` is the advice if it is not the right file.

    Raises:
        MpqError: of type `error`, if it cannot be read or is larger.
    """
    try:
        with open_file(path) as file:
            content = file.read(most + 1)
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror or cause}; {absent}") from cause
    except ValueError as cause:  # a name that holds the character NUL
        raise error(f"cannot read {shown(str(path))}: it is not a file name; {absent}") from cause
    if len(content) > most:
        raise error(f"{path} has more than {most:,} bytes, which is too large to be right: {absent}")
    return content


def read_text(path: Path, *, error: type[MpqError], absent: str, most: int = DOCUMENT_BYTES) -> str:
    """The text of a file.

    Raises:
        MpqError: of type `error`, if it cannot be read, is too large, or is not UTF-8.
    """
    content = read_bytes(path, error=error, absent=absent, most=most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not text in UTF-8 (byte {cause.start:,}): {absent}") from cause


def read_yaml(path: Path, *, error: type[MpqError], absent: str, remedy: str) -> Document:
    """A YAML file. Anchors, aliases, tags and keys given twice are refused: mpq writes none, and they hide what a file says.

    Raises:
        MpqError: of type `error`.
    """
    return yaml_document(read_text(path, error=error, absent=absent), name=str(path), error=error, remedy=remedy)


def yaml_document(text: str, *, name: str, error: type[MpqError], remedy: str) -> Document:
    """YAML text, as `read_yaml` reads it."""
    try:
        return Document(yaml_value(text), name, error, remedy, text)
    except YamlProblem as problem:
        raise error(f"{name} is not YAML that mpq reads: line {problem.line}, {problem}; {remedy}") from problem


def read_json(path: Path, *, error: type[MpqError], absent: str, remedy: str) -> Document:
    """A JSON file.

    Raises:
        MpqError: of type `error`.
    """
    return json_document(read_bytes(path, error=error, absent=absent), name=str(path), error=error, remedy=remedy)


def json_document(content: bytes, *, name: str, error: type[MpqError], remedy: str) -> Document:
    """JSON in UTF-8. NaN, infinity, numbers beyond 64 bits and keys given twice are refused.

    Raises:
        MpqError: of type `error`.
    """
    try:
        return Document(json_value(content), name, error, remedy)
    except ValueError as problem:
        raise error(f"{name} is not JSON that mpq reads ({_reason(problem)}): {remedy}") from problem


def json_value(content: bytes) -> Any:
    """The value of JSON in UTF-8.

    Raises:
        ValueError: if it cannot be read or exceeds a limit; the message says why.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > JSON_NODES:
        raise ValueError(f"more than {JSON_NODES:,} values")
    _check_nesting(content)
    value = json.loads(
        content.decode("utf-8-sig"), object_pairs_hook=_once, parse_int=_integer, parse_float=_finite, parse_constant=_no_number
    )
    if _HALVES.search(content):
        json.dumps(value, ensure_ascii=False).encode()  # an unpaired surrogate raises a ValueError here
    return value


def csv_rows(text: str, document: Document, *, delimiter: str = ",", exact: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV text as line number and text by column; the first line names the columns, and spaces around fields are ignored.

    Args:
        text: the contents of the file.
        document: what errors say about it.
        delimiter: the character between fields.
        exact: whether fields left out at the end of a row are an error, or empty.

    Raises:
        MpqError: of the document's type, if a row has more fields than the first line, or a column name is repeated.
    """
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter)
    columns: list[str] = []
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as problem:
            raise document.error(f"{document.name} is not CSV (line {reader.line_num}: {problem}): {document.remedy}") from problem
        if fields is None:
            return
        fields = [each.strip() for each in fields]
        if not any(fields):
            continue
        if not columns:
            columns = fields
            if len(set(columns)) < len(columns):
                raise document.error(f"{document.name} names a column twice: {document.remedy}")
            continue
        if len(fields) > len(columns) or (exact and len(fields) < len(columns)) or "\0" in "".join(fields):
            reason = f"{shown(delimiter.join(fields))} is not a row of {len(columns)} fields: {document.remedy}"
            raise document.error(f"{document.name}, line {reader.line_num}: {reason}")
        yield reader.line_num, {column: fields[at] if at < len(fields) else "" for at, column in enumerate(columns)}


def _check_nesting(content: bytes) -> None:
    if content.count(b"[") + content.count(b"{") <= NESTING:
        return
    depth = 0
    for found in _BRACKETS.finditer(_STRINGS.sub(b"", content)):
        depth += 1 if found[0] in b"[{" else -1
        if depth > NESTING:
            raise ValueError(f"nested more than {NESTING} levels deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shown(next(name for name in names if names.count(name) > 1))} appears twice")
    return made


def _integer(text: str) -> int:
    if len(text) <= NUMBER_TEXT and -_LARGEST <= (value := int(text)) < _LARGEST:
        return value
    raise ValueError(f"the number {shown(text)[1:-1]} takes more than 64 bits")


def _finite(text: str) -> float:
    if len(text) <= NUMBER_TEXT and math.isfinite(value := float(text)):
        return value
    raise ValueError(f"the number {shown(text)[1:-1]} is out of range")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _reason(problem: ValueError) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return f"byte {problem.start:,} is not UTF-8"
    if isinstance(problem, UnicodeEncodeError):
        return "a text contains half of a surrogate pair"
    if isinstance(problem, json.JSONDecodeError):
        return f"line {problem.lineno}, column {problem.colno}: {problem.msg}"
    return str(problem)
