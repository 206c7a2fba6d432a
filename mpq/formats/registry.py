"""All formats by name, found in the `FORMATS` tuples of the files in this folder. There is no other list of names.

There is one coded format for every rate: `format_named` creates them on demand.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module

import mpq.formats
from mpq.formats.base import Format, Kind
from mpq.formats.coded import coded_format

_KINDS: tuple[Kind, ...] = ("integers", "levels", "floats")
_found: dict[str, Format] = {}


def formats() -> dict[str, Format]:
    """Every format by name, except the coded ones: integers, then levels, then floats; families sorted by their fewest bits."""
    if not _found:
        _found.update(_ordered(_families()))
    return _found


def format_named(name: str) -> Format | None:
    """The format of this name, including coded ones; None if there is none."""
    return formats().get(name) or coded_format(name)


def names(kind: Kind) -> tuple[str, ...]:
    """The names of all formats of one kind."""
    return tuple(name for name, found in formats().items() if found.kind == kind)


def integers_by_bits() -> dict[int, str]:
    """The name of the integer format for each number of bits."""
    return {formats()[name].bits: name for name in names("integers")}


def _families() -> list[tuple[Format, ...]]:
    """The formats of each file; a file without formats gives none."""
    modules = (import_module(f"{mpq.formats.__name__}.{found.name}") for found in pkgutil.iter_modules(mpq.formats.__path__))
    return [found for module in modules if (found := getattr(module, "FORMATS", ()))]


def _ordered(families: Iterable[tuple[Format, ...]]) -> dict[str, Format]:
    ordered = sorted(families, key=lambda family: (_KINDS.index(family[0].kind), min(each.bits for each in family)))
    every = [each for family in ordered for each in family]
    named = {each.name: each for each in every}
    if len(named) < len(every):
        raise ValueError(f"two formats have one name: {', '.join(sorted(each.name for each in every))}")
    return named
