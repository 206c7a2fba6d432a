"""Finds what a pickle would import, and which storages it names, without importing or calling anything.

The pickle is run by the standard library's Python unpickler, with every global replaced by an inert stand-in. Only lists, dictionaries,
sets, strings and numbers are ever created.
"""

from __future__ import annotations

import io
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from mpq.limits import PICKLE_BYTES


@dataclass
class PickleContent:
    """The names in a pickle.

    Args:
        globals: "module.name" of everything that it would import, in order.
        storages: persistent ids, which torch writes for its storages.
        calls: "module.name" and arguments of everything that it would call.
    """

    globals: list[str] = field(default_factory=list)
    storages: list[Any] = field(default_factory=list)
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)


def scan_pickle(content: bytes) -> PickleContent:
    """The names in one pickle.

    Raises:
        ValueError: if it is damaged, or larger than mpq allows.
    """
    if len(content) > PICKLE_BYTES:
        raise ValueError(f"a pickle of {len(content):,} bytes, more than the {PICKLE_BYTES:,} allowed")
    found, problem = scanned(io.BytesIO(content))
    if problem is not None:
        raise ValueError(f"a damaged pickle ({problem})")
    return found


def named_globals(file: IO[bytes], *, pickles: int = 1) -> list[str]:
    """What the first pickles of a file would import, up to where the file is damaged."""
    names: list[str] = []
    for _ in range(pickles):
        found, problem = scanned(file)
        names += found.globals
        if problem is not None:
            break
    return names


def scanned(file: IO[bytes]) -> tuple[PickleContent, str | None]:
    """What one pickle names, up to where it is damaged, and how it is; None where it is whole."""
    content = PickleContent()
    try:
        _Scanner(file, content).load()
    except Exception as error:  # the content decides what goes wrong, so any failure is the content's
        return content, type(error).__name__
    return content, None


class _Scanner(pickle._Unpickler):  # type: ignore[misc, name-defined, unused-ignore]
    """The standard library's machine, which imports nothing."""

    def __init__(self, file: IO[bytes], content: PickleContent) -> None:
        super().__init__(file, fix_imports=False, encoding="bytes")
        self._content = content

    def find_class(self, module: Any, name: Any) -> Any:
        """A stand-in for a global, which is noted."""
        module, name = _text(module), _text(name)
        if (module, name) in NAME_MAPPING:  # as a pickle of Python 2 calls it, whose names torch.save still writes
            module, name = NAME_MAPPING[module, name]
        full = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        self._content.globals.append(full)
        return type("Inert", (Inert,), {"name": full, "content": self._content})

    def persistent_load(self, pid: Any) -> Any:
        """A stand-in for a storage, which is noted."""
        self._content.storages.append(pid)
        return Inert(pid)

    def get_extension(self, code: int) -> None:
        """Refuse a global named by a number."""
        raise pickle.UnpicklingError(f"extension {code}")


class Inert:
    """Takes the place of everything that a pickle imports or makes, and does nothing.

    Args:
        given: what it is made from; of a storage, its persistent id.
    """

    name: str | None = None
    content: PickleContent | None = None

    def __init__(self, *given: Any) -> None:
        self.given = given
        if self.name is not None and self.content is not None:
            self.content.calls.append((self.name, given))

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Take an item, as a list does."""

    def extend(self, _: Sequence[Any]) -> None:
        """Take items, as a list does."""

    def add(self, _: Any) -> None:
        """Take an item, as a set does."""

    def __call__(self, *_: Any) -> Inert:
        return Inert()


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
