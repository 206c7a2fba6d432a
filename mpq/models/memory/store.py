"""Store: keeps packed codes and statistics, so that they are computed only once.

Recently used entries are in memory, up to a limit. All entries are also on disk: in a folder that later commands share (`Folder`), or in an
unnamed file that disappears with the process. An entry in the folder is one file, named by the SHA-256 of its inputs. It contains tensors
and nothing executable: a digest, then safetensors. A damaged, too large or differently shaped entry counts as missing and is written again.
The folder may be deleted at any time; above its limit, the least recently used entries are removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mpq.errors import OutputError
from mpq.files import open_file
from mpq.limits import CACHE_BYTES
from mpq.shown import printable
from mpq.writing.locks import lock
from mpq.writing.outputs import own_mark, remove_dead

Parts = dict[str, Tensor]
MEMORY_BYTES = 256 << 20
MOST_TEXT = 1 << 12  # bytes of a text in an entry
_ENTRY = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial"
_DIGEST = 32
_HEADER = 1 << 16  # bytes of an entry in addition to its tensors


class Store:
    """Tensors by key.

    Args:
        folder: shared with other commands; None keeps them only for this process.
        memory: bytes held in memory.
        spill: the folder of the unnamed file; None uses the system's.
    """

    def __init__(self, folder: Folder | None = None, *, memory: int = MEMORY_BYTES, spill: Path | None = None) -> None:
        self.folder, self._limit, self._held = folder, memory, 0
        self._kept: OrderedDict[str, Parts] = OrderedDict()
        self._spill = _Spill(spill)

    @property
    def notes(self) -> list[str]:
        """What the user should know about the folder."""
        return [self.folder.note] if self.folder is not None and self.folder.note else []

    def get(self, key: str, most: int) -> Parts | None:
        """The tensors of `key`, or None; `most` is their largest possible number of bytes."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        data = self._spill.read(key)
        if data is None and self.folder is not None:
            data = self.folder.read(key, most)
        found = None if data is None else _tensors(data)
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, parts: Mapping[str, Tensor]) -> None:
        """Keep tensors under `key`, in memory and on disk.

        Raises:
            OutputError: if there is no room on either disk.
        """
        found = {name: part.detach().cpu().contiguous() for name, part in parts.items()}
        data = save(found)
        if self.folder is None or not self.folder.write(key, data):
            self._spill.write(key, data)
        self._keep(key, found)

    def _keep(self, key: str, parts: Parts) -> None:
        self._kept[key] = parts
        self._held += _bytes(parts)
        while self._held > self._limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._held -= _bytes(dropped)


class Folder:
    """Entries that several commands share, one file each.

    Args:
        path: the folder; created when the first entry is written.
        limit: total bytes of all entries.

    Attributes:
        note: why no more entries are written; empty as long as they are.
    """

    def __init__(self, path: Path, *, limit: int = CACHE_BYTES) -> None:
        self.path, self._limit, self.note = path, limit, ""
        self._bytes: int | None = None
        self._own: set[str] = set()  # entries written by this process, which may need them again

    def read(self, key: str, most: int) -> bytes | None:
        """The entry under `key`, if it is complete and has at most `most` bytes of tensors."""
        path = self._path(key)
        with suppress(OSError), open_file(path) as file:
            if os.fstat(file.fileno()).st_size > most + _HEADER:
                return None
            data = file.read(most + _HEADER + 1)
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                with suppress(OSError):
                    os.utime(path)
                return data[_DIGEST:]
        return None

    def write(self, key: str, data: bytes) -> bool:
        """Write an entry atomically; returns whether it exists. Entries of this process are not removed to make room."""
        if self.note:
            return False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self._has_room(len(data) + _DIGEST):
                return False
            self._write(self._path(key), hashlib.sha256(data).digest() + data)
        except OSError as error:
            self.note = f"no more entries are written to the cache {self.path}: {error.strerror or error}; --cache names another folder"
            return False
        return True

    def _write(self, path: Path, content: bytes) -> None:
        if not self._own:  # at the first entry, remove leftovers of killed processes
            remove_dead(self.path, ".", _PARTIAL)
        partial = path.with_name(f".{own_mark()}.{path.name}{_PARTIAL}")
        try:
            with partial.open("xb") as file:
                lock(file.fileno())
                file.write(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._own.add(path.name)

    def _path(self, key: str) -> Path:
        return self.path / hashlib.sha256(key.encode()).hexdigest()

    def _has_room(self, size: int) -> bool:
        if self._bytes is None or self._bytes + size > self._limit:
            self._bytes = self._pruned(self._limit - size)
        if self._bytes + size > self._limit:
            return False
        self._bytes += size
        return True

    def _pruned(self, most: int) -> int:
        """Remove the least recently used entries until at most `most` bytes are left; returns the bytes left."""
        found = []
        for entry in os.scandir(self.path):
            if _ENTRY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, entry.name))
        held = sum(size for _, size, _ in found)
        for _, size, name in sorted(found):
            if held > most and name not in self._own:
                with suppress(OSError):  # another command was faster
                    (self.path / name).unlink()
                held -= size
        return held


class Scope:
    """The entries of one model and its data.

    Args:
        store: the store with the entries.
        facts: what the entries depend on in addition to their names: the model, the data, versions.
    """

    def __init__(self, store: Store, facts: Mapping[str, Any]) -> None:
        self.store, self._facts = store, dict(facts)

    def get(self, name: str, most: int) -> Parts | None:
        """The tensors called `name`; see `Store.get`."""
        return self.store.get(self._key(name), most)

    def put(self, name: str, parts: Mapping[str, Tensor]) -> None:
        """Keep tensors under `name`; see `Store.put`."""
        self.store.put(self._key(name), parts)

    def _key(self, name: str) -> str:
        return json.dumps({**self._facts, "name": name}, sort_keys=True)


class _Spill:
    """Consecutive entries in an unnamed file, which the system removes with the process."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._places: dict[str, tuple[int, int]] = {}

    def write(self, key: str, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            raise OutputError(f"cannot write to {place}: {error.strerror or error}; free some space, or set TMPDIR") from error
        self._places[key] = start, len(data)

    def read(self, key: str) -> bytes | None:
        if key not in self._places or self._file is None:
            return None
        start, length = self._places[key]
        self._file.seek(start)
        return self._file.read(length)


def as_bytes(text: str) -> Tensor:
    """A text as a tensor of bytes, at most `MOST_TEXT`."""
    return torch.tensor(list(text.encode()[:MOST_TEXT]), dtype=torch.uint8)


def text_of(part: Tensor | None) -> str:
    """The text of a tensor from `as_bytes`, safe to print; empty for anything else."""
    return "" if part is None or part.dtype != torch.uint8 else printable(bytes(part.flatten().tolist()).decode(errors="replace"))


def _tensors(data: bytes) -> Parts | None:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _bytes(parts: Parts) -> int:
    return sum(part.numel() * part.element_size() for part in parts.values())
