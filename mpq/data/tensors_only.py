"""Reads torch.save files without running any code from the file: tensors in plain containers.

torch's own restricted reader loads the file. Before that, the archive is listed strictly and the sizes of its storages are compared with
those in the pickle, so that torch never allocates memory for a tensor that does not exist. After a refusal, the pickle is scanned for what
it would have called, for the message.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import IO, Any

import torch
from torch._weights_only_unpickler import _get_allowed_globals

from mpq.data.inert_pickle import Inert, PickleContent, named_globals, scanned
from mpq.data.zip_records import RecordError, Records
from mpq.limits import ARCHIVE_FREE_BYTES, ARCHIVE_RATIO, PICKLE_BYTES, SHOWN_TEXT

_KNOWN = re.compile(r"data\.pkl|byteorder|version|\.data/\w+|data/\w+|\.format_version|\.storage_alignment")
_LONGEST = 160
_LEGACY_PICKLES = 5  # magic number, version, system, content, keys


class HoldsCodeError(Exception):
    """A pickle that imports what plain tensors do not need; the text is the first such name."""


def load_tensors(file: IO[bytes]) -> Any:
    """The contents of a torch.save file.

    Raises:
        HoldsCodeError: if loading it would import or call more than tensors need.
        Exception: an error of torch, or RecordError, if it is damaged.
    """
    check_tensors_only(file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        content = torch.load(file, weights_only=True, map_location="cpu")
    check_expanded(content)
    return content


def check_expanded(content: Any) -> None:
    """Refuse a tensor that repeats a small storage so often that using it would need too much memory.

    Raises:
        RecordError: with its sizes.
    """
    waiting, seen = [content], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.Tensor) and part.layout == torch.strided and not part.is_meta:
            held, taken = part.untyped_storage().nbytes(), part.numel() * part.element_size()
            if taken > max(ARCHIVE_FREE_BYTES, ARCHIVE_RATIO * held):
                raise RecordError(f"a tensor of {taken:,} bytes in a storage of {held:,}")
        elif isinstance(part, (dict, list, tuple, set)):
            waiting += part.values() if isinstance(part, dict) else part


def check_tensors_only(file: IO[bytes]) -> None:
    """Refuse a torch.save file that imports more than tensors need; the file is rewound.

    Raises:
        HoldsCodeError: if it does.
        RecordError: if it is a damaged archive.
    """
    if file.read(2) == b"PK":
        _check_records(Records(file))
    else:
        file.seek(0)
        if stranger := _stranger(named_globals(file, pickles=_LEGACY_PICKLES)):
            raise HoldsCodeError(stranger)
    file.seek(0)


def reason_of(error: Exception) -> str:
    """The reason from a reader of torch, in one sentence and without its advice to let the file run code."""
    text = str(error).replace("Weights only load failed", "").strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line.removeprefix("WeightsUnpickler error:").strip() for line in lines if line.startswith("WeightsUnpickler error")), None)
    first = said or (lines[0] if lines else "")
    if not first or "weights_only" in first or "add_safe_globals" in first:
        return type(error).__name__
    return first.partition(". ")[0].rstrip(".")[:_LONGEST]


def storage_bytes(pid: Any) -> tuple[str, int] | None:
    """The key of a storage and its size, from its persistent id; None if it does not have torch's form."""
    match pid:
        case ("storage" | b"storage", type() as kind, str() as key, _, int() as count, *_) if issubclass(kind, Inert) and kind.name:
            size = _ITEM_SIZES.get(kind.name)
            return None if size is None or count < 0 else (key, size * count)
    return None


def storage_count(pid: Any) -> int | None:
    """The number of elements of a storage, from its persistent id."""
    return int(pid[4]) if storage_bytes(pid) is not None else None


def check_storages(content: PickleContent, folder: str, records: Records) -> None:
    """Refuse a pickle that names storages whose size differs from their records in `folder`.

    Raises:
        RecordError: naming the record.
    """
    for pid in content.storages:
        found = storage_bytes(pid)
        if found is None:
            raise RecordError("a tensor stored in an unusual way")
        name = f"{folder}/{found[0]}"
        if name not in records or records.size(name) != found[1]:
            raise RecordError(f"another size of the record {name[:SHOWN_TEXT]!r} than its tensors have")


def _check_records(records: Records) -> None:
    for name in records:
        if not _KNOWN.fullmatch(name):
            raise RecordError(f"the unusual record {name[:SHOWN_TEXT]!r}")
    if "data.pkl" not in records:
        raise RecordError("no record 'data.pkl'")
    content, problem = scanned(io.BytesIO(records.read("data.pkl", PICKLE_BYTES)))
    if stranger := _stranger(content.globals):
        raise HoldsCodeError(stranger)
    if problem is not None:
        raise ValueError(f"a damaged pickle ({problem})")
    check_storages(content, "data", records)


def _stranger(names: list[str]) -> str | None:
    """The first global that torch's restricted reader does not know."""
    allowed = {*_get_allowed_globals(), *(f"{each.__module__}.{each.__qualname__}" for each in _allowed_by_others())}
    return next((name for name in names if name not in allowed), None)


def _allowed_by_others() -> list[Any]:
    """Globals that libraries have registered as safe with torch."""
    return [each for each in torch.serialization.get_safe_globals() if hasattr(each, "__qualname__")]


def _item_sizes() -> dict[str, int]:
    sizes = {f"torch.{name}": dtype.itemsize for dtype, name in torch.storage._dtype_to_storage_type_map().items()}
    return sizes | {"torch.storage.UntypedStorage": 1}


_ITEM_SIZES = _item_sizes()
