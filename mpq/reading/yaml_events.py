"""YAML from its events, without recursion: depth, size and keys are checked while it is read. No torch.

Scalars are read as in YAML 1.1 by PyYAML, except that keys and dates stay text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from mpq.limits import NESTING, NUMBER_TEXT, YAML_NODES
from mpq.shown import encodes, shown

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER, _CONSTRUCTOR = Resolver(), SafeConstructor()
_PREFIX = "tag:yaml.org,2002:"
_LARGEST = 2**63
Place = tuple[str | int, ...]


class YamlProblem(ValueError):  # noqa: N818
    """What is wrong, and on which line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def yaml_value(text: str) -> Any:
    """The value of a YAML document; None if it is empty.

    Raises:
        YamlProblem: if it cannot be read, exceeds a limit, or holds an anchor, an alias, a tag, or a key twice.
    """
    return _Builder(None).build(text)


def yaml_line(text: str, place: Place) -> int | None:
    """The line on which the value at `place` begins, counted from 1; None if there is none."""
    builder = _Builder(place)
    try:
        builder.build(text)
    except YamlProblem:
        return None
    return builder.line


class _Builder:
    """The open containers, innermost last, each with the key that awaits its value."""

    def __init__(self, sought: Place | None) -> None:
        self.line: int | None = None
        self._sought = sought
        self._open: list[tuple[dict[str, Any] | list[Any], list[str]]] = []
        self._place: list[str | int] = []
        self._root: Any = None
        self._documents = self._nodes = 0

    def build(self, text: str) -> Any:
        """The value of the one document in `text`."""
        for event in _events(text):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise YamlProblem(f"aliases such as *{shown(event.anchor)[1:-1]} are not supported: write the value out", line)
            if isinstance(event, yaml.NodeEvent):
                self._node(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._open.pop()
            elif isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise YamlProblem("a second document begins: keep one in a file", line)
        return self._root

    def _node(self, event: Any, line: int) -> None:
        self._nodes += 1
        if self._nodes > YAML_NODES:
            raise YamlProblem(f"there are more than {YAML_NODES:,} values", line)
        if event.anchor is not None:
            raise YamlProblem(f"anchors such as &{shown(event.anchor)[1:-1]} are not supported: write the value out", line)
        if event.tag is not None:
            raise YamlProblem(f"the tag {shown(event.tag)} is not supported: write plain values", line)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
            return
        made: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(made, line)
        self._open.append((made, []))
        if len(self._open) > NESTING:
            raise YamlProblem(f"it is nested more than {NESTING} levels deep", line)

    def _scalar(self, event: Any, line: int) -> None:
        if not encodes(event.value):
            raise YamlProblem(f"{shown(event.value)} holds an invalid character", line)
        if self._open and isinstance(self._open[-1][0], dict) and not self._open[-1][1]:
            if event.value in self._open[-1][0]:
                raise YamlProblem(f"the key {shown(event.value)} appears twice", line)
            self._open[-1][1].append(event.value)
            return
        self._put(_meaning(event.value, line) if event.implicit[0] else event.value, line)

    def _put(self, value: Any, line: int) -> None:
        if not self._open:
            self._root = value
            return
        parent, waiting = self._open[-1]
        if isinstance(parent, list):
            key: str | int = len(parent)
            parent.append(value)
        elif waiting:
            key = waiting.pop()
            parent[key] = value
        else:
            raise YamlProblem("a list or a mapping cannot be a key: use text", line)
        del self._place[len(self._open) - 1 :]
        self._place.append(key)
        if self._sought is not None and self.line is None and tuple(self._place) == self._sought:
            self.line = line


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(error.problem or error.context or "it cannot be read", 1 if mark is None else mark.line + 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise YamlProblem(f"{error.reason}: {shown(chr(error.character) if isinstance(error.character, int) else '')}", line) from error


def _meaning(text: str, line: int) -> Any:
    """The value of a plain scalar."""
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    kind = kind.removeprefix(_PREFIX)
    if kind == "null":
        return None
    if kind == "bool":
        return _CONSTRUCTOR.bool_values[text.lower()]
    if kind not in ("int", "float") or len(text) > NUMBER_TEXT:
        return text
    node = yaml.ScalarNode(_PREFIX + kind, text)
    try:
        value = _CONSTRUCTOR.construct_yaml_int(node) if kind == "int" else _CONSTRUCTOR.construct_yaml_float(node)
    except (ValueError, ConstructorError):  # "0b_" and the like match the pattern of a number
        return text
    if not (-_LARGEST <= value < _LARGEST if kind == "int" else math.isfinite(value)):
        raise YamlProblem(f"the number {shown(text)[1:-1]} is out of range", line)
    return value
