"""Turns of a chat as chat templates read them, from the forms that data sets give them.

[{"role": "user", "content": ...}, ...]     messages; "from" and "value" likewise
'[{"role": "user", ...}]'                   the same as JSON text
{"role": [...], "content": [...]}           the same as lists by key
"content": [{"type": "text", "text": ...}]  content in parts, joined
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mpq.errors import DataError
from mpq.shown import first_line, shown

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_CALLS = ("tool_calls", "function_call")
_WRITTEN = re.compile(r"\s*\[\s*\{")
Turn = dict[str, Any]


def messages_in(value: Any) -> list[Any] | None:
    """The messages that a value holds in one of these forms; None if it holds something else. The messages are not checked."""
    if isinstance(value, str):
        written = _loaded(value) if _WRITTEN.match(value) else None
        return written if is_chat(written) else None
    if isinstance(value, Mapping):
        columns = list(value.values())
        same = columns and all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns)
        return [dict(zip(value, one, strict=True)) for one in zip(*columns, strict=True)] if same and _has_role(value) else None
    return value if isinstance(value, list) else None


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages with roles, as such or as JSON text."""
    found = value if isinstance(value, list) else messages_in(value)
    return bool(found) and all(isinstance(one, Mapping) and _has_role(one) for one in found or ())


def refuse_broken(value: Any, name: str, place: str) -> None:
    """Refuse text that looks like written messages and is not.

    Raises:
        DataError: if it is.
    """
    if isinstance(value, str) and _WRITTEN.match(value):
        try:
            json.loads(value)
            reason = "no roles"
        except (ValueError, RecursionError) as error:
            reason = first_line(error)
        raise DataError(f'{place}: "{name}" looks like messages but is not JSON of them ({reason}); write it with json.dumps')


def turn_of(value: Any, place: str) -> Turn:
    """A turn with the key names of chat templates; its other keys, such as tool calls, stay.

    Raises:
        DataError: if it is not a message, or has content other than text.
    """
    if not isinstance(value, Mapping):
        raise DataError(f'{place}: a message is {shown(value)}; give {{"role": ..., "content": ...}}')
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if isinstance(content, list):
        content = "".join(_part(one, place) for one in content)
    if content is None and any(value.get(name) for name in _CALLS):
        content = ""
    if not isinstance(role, str) or not isinstance(content, str):
        raise DataError(f"{place}: a message has no role or no text; give both")
    others = {key: inner for key, inner in value.items() if key not in ("from", "value") and inner is not None}
    return {**others, "role": _ROLES.get(role, role), "content": content}


def calls_tools(turn: Turn) -> bool:
    """Whether a turn calls tools, which only a chat template can write."""
    return any(turn.get(name) for name in _CALLS)


def without_calls(turn: Turn) -> Turn:
    """The turn without its calls of tools."""
    return {key: value for key, value in turn.items() if key not in _CALLS}


def tools_in(value: Any) -> list[Any] | None:
    """The descriptions of tools, as a list or as JSON text; None if there are none."""
    found = _loaded(value) if isinstance(value, str) and _WRITTEN.match(value) else value
    return found if isinstance(found, list) and found and all(isinstance(one, Mapping) for one in found) else None


def _part(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    text = value.get("text") if isinstance(value, Mapping) else None
    if isinstance(text, str):
        return text
    kind = value.get("type") if isinstance(value, Mapping) else value
    raise DataError(f"{place}: a message has a part of type {shown(kind)}, and only text can be read; leave it out")


def _has_role(value: Mapping[str, Any]) -> bool:
    return "role" in value or "from" in value


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
