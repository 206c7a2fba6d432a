"""The reference of the Python API as Markdown, from the docstrings of the public names: python -m mpq.cli.api_page > docs/api.md."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from mpq.cli.api_examples import EXAMPLES

_HEAD = """\
# Python API

Written by `python -m mpq.cli.api_page > docs/api.md` from the docstrings of the public names. A test keeps it up to date and runs
the examples.

Everything here can be imported from `mpq`. The examples run from top to bottom in a folder with the files of `mpq demo --keep .`.
"""
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields):$", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(?=\S)", re.MULTILINE)
_WIDTH = 100  # of a signature on one line


def page() -> str:
    """The whole page."""
    package = import_module("mpq")
    contents = [f"- [`{name}`](#{name.lower()}): {_first(getattr(package, name))}" for name in EXAMPLES]
    return "\n".join([_HEAD, *contents, "", *(line for name in EXAMPLES for line in _entry(name, getattr(package, name)))])


def _first(found: Any) -> str:
    return " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())


def _entry(name: str, found: Any) -> Iterator[str]:
    """One public name: signature, docstring, example, and for a class its public members."""
    if inspect.isclass(found) and issubclass(found, Exception):
        signature = f"class {name}({found.__bases__[0].__name__})"
    else:
        signature = f"class {name}{_signature(found)}" if inspect.isclass(found) else f"{name}{_signature(found)}"
    yield from (f"## {name}", "", f"```text\nmpq.{signature.removeprefix('class ')}\n```", "")
    yield from _docstring(inspect.getdoc(found) or "")
    if inspect.isclass(found):
        yield from _members(found)
    if name == "MpqError":
        yield from ("All errors are in `mpq.errors`, with their exit codes on the command line:", "", "```text", _tree(found), "```", "")
    yield from ("```python", EXAMPLES[name].strip(), "```", "")


def _tree(error: type) -> str:
    """The tree of errors that is drawn at the head of their file."""
    return (inspect.getdoc(import_module(error.__module__)) or "").partition("\n\n")[2]


def _signature(found: Any) -> str:
    """The arguments with their types and defaults: on one line if it is short, else one argument per line."""
    given = inspect.signature(found)
    kept = [each for each in given.parameters.values() if each.name != "self"]
    words = [_argument(each) for each in kept]
    star = next((index for index, each in enumerate(kept) if each.kind == each.KEYWORD_ONLY), None)
    if star is not None:
        words.insert(star, "*")
    result = "" if inspect.isclass(found) else f" -> {given.return_annotation}"
    line = f"({', '.join(words)}){result}"
    return line if len(line) <= _WIDTH else "(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"


def _argument(found: inspect.Parameter) -> str:
    """Name, type and default; a default factory is shown as the empty value that it makes."""
    kind = found.annotation if isinstance(found.annotation, str) else inspect.formatannotation(found.annotation)
    default = repr(found.default).replace("'", '"').replace("<factory>", "{}")
    return f"{_parameter(found)}: {kind}" + ("" if found.default is found.empty else f" = {default}")


def _docstring(text: str) -> Iterator[str]:
    """Paragraphs unchanged; sections with entries as tables."""
    parts = _SECTION.split(text)
    yield from (parts[0].strip(), "")
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        rows = [" ".join(entry.split()).partition(": ") for entry in _ENTRY.split(body) if entry.strip()]
        yield from (f"| {title} | |", "|---|---|", *(f"| `{name}` | {_cell(told)} |" for name, _, told in rows), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _members(found: type) -> Iterator[str]:
    """Public methods and properties that have a docstring, in the order of the source."""
    rows = [(name, member) for name, member in vars(found).items() if not name.startswith("_") and inspect.getdoc(member)]
    shown = [(_call(name, member), _first(member)) for name, member in rows if isinstance(member, property) or inspect.isfunction(member)]
    if shown:
        yield from ("| Members | |", "|---|---|", *(f"| `{call}` | {_cell(told)} |" for call, told in shown), "")


def _call(name: str, member: Any) -> str:
    if isinstance(member, property):
        return name
    return f"{name}({', '.join(_parameter(each) for each in inspect.signature(member).parameters.values() if each.name != 'self')})"


def _parameter(found: inspect.Parameter) -> str:
    stars: Mapping[Any, str] = {found.VAR_POSITIONAL: "*", found.VAR_KEYWORD: "**"}
    return stars.get(found.kind, "") + found.name


if __name__ == "__main__":
    sys.stdout.write(page())
