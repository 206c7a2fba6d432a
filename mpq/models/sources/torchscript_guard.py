"""Checks a TorchScript archive and rebuilds it without anything that could run its own code while it loads, or reach files when it runs.

TorchScript is a language: its source in the archive is compiled while loading. `__setstate__` methods and default values run then, other
code when the model is called. It can only call operators of torch, so the source is scanned for their names. The scan does not parse: it
looks at every name in the text, including strings, so it does not matter how torch would parse it. The checked archive contains the code,
the pickles that name only classes of that code, and bytes of tensors whose sizes were checked; everything else is left out.
"""

from __future__ import annotations

import re
from typing import IO, Any

from mpq.data.inert_pickle import Inert, PickleContent, scan_pickle
from mpq.data.tensors_only import check_storages, storage_count
from mpq.data.zip_records import RecordError, Records
from mpq.errors import ModelError
from mpq.limits import CODE_BYTES, PICKLE_BYTES, SHOWN_TEXT
from mpq.models.sources.allowed_operators import PRIMITIVES, refused_names
from mpq.models.sources.clean_archive import CleanArchive

_CODE = re.compile(r"code/__torch__(/\w+)*\.py")
_PICKLES = {"data.pkl": "data", "constants.pkl": "constants"}
_TENSORS = re.compile(r"(data|constants)/\d+")
_LEFT_OUT = re.compile(
    r"version|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/.+|code/__torch__(/\w+)*\.py\.debug_pkl|traced_inputs(\.pkl|/\d+)"
)
_CLASS = re.compile(r"__torch__(\.\w+)+")
_GLOBALS = re.compile(
    r"torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.\w+Storage|torch\.device|collections\.OrderedDict|builtins\.complex"
    r"|torch\.jit\._pickle\.(build_(int|bool|double|tensor)list|restore_type_tag)"
)
_REBUILT = "torch._utils._rebuild_tensor_v2"
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NEVER = frozenset(["__setstate__", "__getstate__"])
_EMPTY_TEXT = r"""(?<=[=(,\[] )""(?![\s\\]*["'])"""
_HIDDEN_TEXT = re.compile(rf"""\\[0-7xuUN]|(?!{_EMPTY_TEXT})["'][\s\\]*["']""")  # escapes that spell letters; strings that are joined
_OPS = re.compile(r"ops\.(prim|aten)\.(\w+)", re.ASCII)
_GAP = " \t\n\r\\"
_LOOK_BACK = 200


def checked_script(file: IO[bytes], source: str) -> CleanArchive:
    """An archive of the records that torch may read; `file` stays in use.

    Raises:
        ModelError: naming what in the archive could run code or reach files, and `--trust`.
        RecordError: if the archive is damaged or ambiguous.
    """
    records = Records(file)
    clean = CleanArchive(file)
    budget = CODE_BYTES
    for name in records:
        content: bytes | None = None
        if _CODE.fullmatch(name):
            content = records.read(name, budget)
            budget -= len(content)
            _refuse(_suspect(content), source)
        elif name in _PICKLES:
            content = records.read(name, PICKLE_BYTES)
            _check_pickle(content, _PICKLES[name], records, source)
        elif _TENSORS.fullmatch(name):
            clean.place(name, records)
        elif not _LEFT_OUT.fullmatch(name):
            _refuse(f"the unusual record {name[:SHOWN_TEXT]!r}", source)
        if content is not None:
            clean.write_record(name, content)
    clean.write_record("version", _version(records))
    clean.write_record("byteorder", b"little")
    return clean.finish()


def _refuse(found: str | None, source: str) -> None:
    if found:
        raise ModelError(f"{source} is TorchScript with {found}, which may run code or reach files: if you trust the file, add --trust")


def _version(records: Records) -> bytes:
    """The format version, by which torch chooses the behavior of old operators."""
    name = next((name for name in (".data/version", "version") if name in records), None)
    raw = b"" if name is None else records.read(name, 8)
    if not re.fullmatch(rb"\d{1,4}\n?", raw):
        raise RecordError("no format version")
    if "byteorder" in records and records.read("byteorder", 6) != b"little":
        raise RecordError("numbers in another byte order")
    return raw


def _suspect(raw: bytes) -> str | None:
    """Names in a source that could do more than compute."""
    text = raw.decode("ascii", errors="replace")
    strange = next((character for character in text if not (" " <= character <= "~" or character == "\n")), None)
    if strange is not None or "#" in text:
        return f"the unusual character {strange or '#'!r} in its code"
    by_text = "getattr" in text  # takes the name of an attribute from a string
    if by_text and _HIDDEN_TEXT.search(text):
        return "getattr next to unusual strings"
    return next(filter(None, (_suspect_name(match, text, by_text) for match in _NAME.finditer(text))), None)


def _suspect_name(match: re.Match[str], text: str, by_text: bool) -> str | None:
    name, start = match[0], match.start()
    before = text[max(0, start - _LOOK_BACK) : start].rstrip(_GAP)
    called = not before or before.endswith((".", '"', "'") if by_text else ".")
    if name in _NEVER or (called and name in refused_names()):
        return f"a call of '{name}'"
    owner = before.rstrip(_GAP + ".")
    if name == "classes" and (not owner or (before.endswith(".") and owner.endswith("torch"))):
        return "an object of C++"
    return _beyond_operators(text, start) if name == "ops" and not before.endswith(".") else None


def _beyond_operators(text: str, start: int) -> str | None:
    match = _OPS.match(text, start)
    if match is None:
        return f"the operator {' '.join(text[start : start + SHOWN_TEXT].split())[:40]!r}"
    space, name = match.groups()
    allowed = PRIMITIVES.fullmatch(name) if space == "prim" else name not in refused_names()
    return None if allowed else f"a call of '{name}'"


def _check_pickle(raw: bytes, folder: str, records: Records, source: str) -> None:
    content = scan_pickle(raw)
    for name in content.globals:
        if not (_CLASS.fullmatch(name) and not name.startswith("__torch__.torch.classes.")) and not _GLOBALS.fullmatch(name):
            _refuse(f"a pickled {name[:SHOWN_TEXT]!r}", source)
    if b"torch.classes" in raw:
        _refuse("an object of C++", source)
    check_storages(content, folder, records)
    _check_tensors(content)


def _check_tensors(content: PickleContent) -> None:
    """Refuse a tensor that reaches outside its storage: torch's C++ reader does not check this."""
    for name, given in content.calls:
        if name == _REBUILT and not _lies_inside(given):
            raise RecordError("a tensor that reaches outside its storage")


def _lies_inside(given: tuple[Any, ...]) -> bool:
    match given:
        case (Inert(given=(pid,)), int() as offset, tuple() as shape, tuple() as strides, *_) if len(shape) == len(strides):
            numbers = (offset, *shape, *strides)
            if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in numbers):
                return False
            count = storage_count(pid)
            if count is None:
                return False
            if 0 in shape:
                return True
            last: int = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            return last < count
    return False
