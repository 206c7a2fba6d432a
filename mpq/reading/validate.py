"""Types for what `reading/documents.py` read: one definition per record gives keys, types and ranges, and errors name the place.

A definition is a `msgspec.Struct` or a type made of those; `schemas/generate.py` makes the JSON schemas from the same. No torch.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mpq.reading.documents import Document
from mpq.shown import cut, printable, shown

_T = TypeVar("_T")
_LEADS = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>.*)`)?$", re.DOTALL)
_IN_KEY = re.compile(r"key` in `")
_STEP = re.compile(r"\.(?P<field>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
_EXPECTED = re.compile(
    r"Expected `(?P<kinds>[^`]*)`"
    r"(?: (?P<relation>>=|<=|>|<) (?P<bound>\S+)| of length (?P<size>.*)| matching regex (?P<form>.*))?"
)
_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "a mapping", "array": "a list"}
_RELATIONS = {">=": "{} or more", "<=": "at most {}", ">": "more than {}", "<": "less than {}"}
_WRITTEN_OUT = 1e18  # larger bounds are written with an exponent
_Place = tuple[str | int, ...]


def validated(document: Document, kind: type[_T], *, at: _Place = ()) -> _T:
    """The document, or one place in it, as `kind`.

    Raises:
        MpqError: of the document's type: one line with the place, the value, and what would be right.
    """
    value = valued(document.value, at)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        place, reason, key = _explained(value, kind, str(error))
        raise document.refuse(f"{_said(at + place)}{reason}; {document.remedy}", *at, *place, *key) from error
    except UnicodeEncodeError as error:
        raise document.refuse(f"{_said(at)}holds half of a surrogate pair, which is not text; {document.remedy}", *at) from error


def valued(value: Any, place: _Place) -> Any:
    """The value at a place, given as keys and indices from the top."""
    for key in place:
        value = value[key]
    return value


def named(place: _Place) -> str:
    """A place as people write it: "budgets[0].files"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{cut(printable(key), 60)}" for key in place)
    return text.removeprefix(".")


def _said(place: _Place) -> str:
    return f"{named(place)} " if place else "it "


def _explained(value: Any, kind: Any, message: str) -> tuple[_Place, str, _Place]:
    """The place of the error, what is wrong, and the offending key below that place, if there is one."""
    found = _LEADS.match(message)
    assert found is not None
    what, leads = found["what"], found["place"] or "$"
    in_key = _IN_KEY.search(leads) is not None
    steps = _STEP.findall(leads.partition("` in `")[2] if in_key else leads)
    place = _located(value, kind, message, [field or index for field, index in steps])
    if in_key:
        wrong = max(valued(value, place), key=len)  # keys are always text, so only their length can be wrong
        return place, f"has the key {shown(wrong)}: give {_wanted(what)}", (wrong,)
    field = re.search(r"field `(.*)`", what, re.DOTALL)
    if field is not None and "unknown" in what:
        return place, f"has the unknown key {shown(field[1])}: use {', '.join(_keys_at(kind, place))}", (field[1],)
    if field is not None:
        return place, f"lacks the key {shown(field[1])}", ()
    wanted = _stated(_kind_at(kind, place)) or _wanted(what)
    return place, f"is {_value(valued(value, place))}: give {wanted}", ()


def _stated(kind: Any) -> str | None:
    """The expected value according to the definition: the names of a `Literal`, or `extra={"give": ...}`."""
    if get_origin(kind) in (Union, types.UnionType):
        found = [_stated(part) for part in get_args(kind) if part is not type(None)]
        return found[0] if len(found) == 1 else None
    if get_origin(kind) is Annotated:
        given = [meta.extra["give"] for meta in get_args(kind)[1:] if isinstance(meta, msgspec.Meta) and meta.extra]
        return given[0] if given else _stated(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return None


def _value(value: Any) -> str:
    return "empty" if value is None else shown(value)


def _wanted(what: str) -> str:
    """The expected value, from msgspec's message."""
    found = _EXPECTED.match(what)
    if found is None:
        return f"another value ({cut(printable(what), 80)})"
    kinds = [_KINDS.get(kind, kind) for kind in found["kinds"].split(" | ") if kind != "null"]
    text = " or ".join(kinds) if len(kinds) < 3 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    if found["relation"]:
        bound = float(found["bound"])
        number = f"{bound:,.0f}" if bound.is_integer() and abs(bound) < _WRITTEN_OUT else f"{bound:g}"
        joint = " of " if found["relation"] in (">=", "<=") else ", "
        return f"{text}{joint}{_RELATIONS[found['relation']].format(number)}"
    if found["size"]:
        units = "characters" if found["kinds"] == "str" else "entries"
        relation, _, bound_text = found["size"].rpartition(" ")
        return f"{text} of {_RELATIONS[relation].format(bound_text) if relation else bound_text} {units}"
    return text


def _located(value: Any, kind: Any, message: str, steps: list[str]) -> _Place:
    """The place named in a message. msgspec hides the keys of mappings; bisection finds them."""
    place: list[str | int] = []
    here = value
    for step in steps:
        if step == "...":
            key: str | int = _broken_entry(value, kind, message, tuple(place), here)
        else:
            key = int(step) if isinstance(here, (list, tuple)) else step
        place.append(key)
        here = here[key]
    return tuple(place)


def _broken_entry(value: Any, kind: Any, message: str, place: _Place, mapping: Mapping[str, Any]) -> str:
    names = list(mapping)
    while len(names) > 1:
        half = names[: len(names) // 2]
        names = half if _fails(_replaced(value, place, {name: mapping[name] for name in half}), kind, message) else names[len(half) :]
    return names[0]


def _fails(value: Any, kind: Any, message: str) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _replaced(value: Any, place: _Place, new: Any) -> Any:
    if not place:
        return new
    copy: Any = dict(value) if isinstance(value, Mapping) else list(value)
    copy[place[0]] = _replaced(value[place[0]], place[1:], new)
    return copy


def _keys_at(kind: Any, place: _Place) -> list[str]:
    """The keys of the definition at a place."""
    parts = _parts(_kind_at(kind, place))
    return [field.encode_name for struct in parts if _is_struct(struct) for field in msgspec.structs.fields(struct)]


def _kind_at(kind: Any, place: _Place) -> Any:
    for key in place:
        kind = _below(kind, key)
    return kind


def _below(kind: Any, key: str | int) -> Any:
    for part in _parts(kind):
        if _is_struct(part) and isinstance(key, str):
            hints = get_type_hints(part, include_extras=True)
            if key in hints:
                return hints[key]
        if get_origin(part) is dict and isinstance(key, str):
            return get_args(part)[1]
        if get_origin(part) in (list, tuple) and isinstance(key, int):
            return get_args(part)[0]
    return Any


def _parts(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _parts(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [part for each in get_args(kind) for part in _parts(each)]
    return [kind]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
