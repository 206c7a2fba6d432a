"""Registries: interchangeable parts by name, each with the location of its class and a short description. A part is imported only when it
is used.

Help texts, JSON schemas, docs and error messages are generated from the registries. So a new part needs its own file and one line in its
registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

from mpq.errors import UsageError

Part = TypeVar("Part")


class Registry(Mapping[str, str], Generic[Part]):
    """The parts of one kind: a mapping from name to short description.

    Args:
        noun: what a part is called, for the error message.
        homes: "package.module:Class" and short description, by name.
        also: other names that are accepted where a part may be named.
    """

    def __init__(self, noun: str, homes: Mapping[str, tuple[str, str]], *, also: tuple[str, ...] = ()) -> None:
        self._noun, self._homes, self._also = noun, dict(homes), also

    def __getitem__(self, name: str) -> str:
        return self._homes[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def kind(self, name: str) -> type[Part]:
        """The class of the part called `name`.

        Raises:
            UsageError: if there is none; the message lists them.
        """
        if name not in self._homes:
            raise UsageError(f"'{name}' is not a {self._noun}: use one of {', '.join((*self._also, *self))}")
        module, _, title = self._homes[name][0].partition(":")
        found: type[Part] = getattr(import_module(module), title)
        return found

    def described(self) -> str:
        """All names with their descriptions in brackets, for a help text."""
        return ", ".join(f"{name} ({words})" for name, words in self.items())


def either(names: Mapping[str, str]) -> str:
    """Names as a choice: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
