"""Turns common kinds of records into documents: plain text, chats, prompts with responses, instructions.

    {"text": ...}                                                   the text
    {"messages": [{"role": "user", "content": ...}, ...]}           a chat; "conversations" with "from" and "value" likewise
    {"prompt": ..., "response": ...}                                two turns; also completion, output, answer, chosen
    {"instruction": ..., "input": ..., "output": ...}               two turns, input or context second; also question, answer
    {"system": ..., ...}                                            with any of these turns: a system turn before them
    {"anything": ...}                                               the only field that holds text

The tokenizer's chat template turns them into text, so that a model sees what it was trained on. Without a template, turns are joined by
blank lines, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpq.errors import DataError
from mpq.shown import encodes, first_line, shown, shown_bare

_CHATS = ("messages", "conversations", "conversation")
_ASKED = ("prompt", "instruction", "question", "query")
_ANSWERED = ("response", "completion", "output", "answer", "chosen", "answers")
_ADDED = ("input", "context")
_SYSTEM = ("system", "system_prompt")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
Turn = dict[str, str]


class Documents:
    """Makes one document from each record; the first record decides which fields are read.

    Args:
        tokenizer: the tokenizer with the chat template; None if there is none.
        field: the field to read, with text or messages; None looks for one.
        source: how the user wrote the data, for messages.
        unit: the unit of a record: "line" or "row".

    Attributes:
        notes: how records were read, for people.
    """

    def __init__(self, tokenizer: Any, field: str | None, source: str, *, unit: str = "line") -> None:
        self._tokenizer, self._field, self._source, self._unit = tokenizer, field, source, unit
        self._kind: tuple[str, ...] | None = None
        self.notes: list[str] = []

    def of(self, record: Mapping[str, Any], number: int) -> str:
        """The document of one record.

        Raises:
            DataError: if it lacks a field that the first record has, or has no text.
        """
        if self._kind is None:
            self._kind = (self._field,) if self._field else fields_of(record, self._source)
            self._note(record.get(self._kind[0]))
        place = f"{self._source}, {self._unit} {number}"
        if len(self._kind) == 1 and not isinstance(record.get(self._kind[0]), list):
            found = self._text(record, self._kind[0], place)
        else:
            found = self._rendered(self._turns(record, place), place)
        if not encodes(found):
            raise DataError(f"{place}: the text contains half of a surrogate pair; write whole characters")
        return found

    @property
    def _template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    def _note(self, value: Any) -> None:
        assert self._kind is not None
        fields = ", ".join(self._kind)
        if len(self._kind) == 1 and not isinstance(value, list):
            return
        if self._template:
            self.notes.append(f"{fields}: turns formatted with the tokenizer's chat template")
        else:
            self.notes.append(f"{fields}: turns joined by blank lines, because the tokenizer has no chat template")

    def _turns(self, record: Mapping[str, Any], place: str) -> list[Turn]:
        assert self._kind is not None
        if len(self._kind) == 1:
            turns = [_turn(one, place) for one in record[self._kind[0]]]
            return turns if any(turn["role"] == "system" for turn in turns) else [*_system(record), *turns]
        *asked, answered = self._kind
        question = "\n\n".join(filter(None, (self._text(record, name, place) for name in asked)))
        return [
            *_system(record),
            {"role": "user", "content": question},
            {"role": "assistant", "content": self._text(record, answered, place)},
        ]

    def _text(self, record: Mapping[str, Any], name: str, place: str) -> str:
        value = record.get(name)
        if value is None and name in _ADDED:
            return ""
        if not isinstance(value, str):
            raise DataError(f'{place}: no text under "{name}"; every {self._unit} needs it')
        return value

    def _rendered(self, turns: Sequence[Turn], place: str) -> str:
        if not self._template:
            return "\n\n".join(turn["content"] for turn in turns)
        try:
            return str(self._tokenizer.apply_chat_template(list(turns), tokenize=False))
        except Exception as error:  # a template may raise any error
            raise DataError(f"{place}: the tokenizer's chat template refuses it ({first_line(error)})") from error


def fields_of(record: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The fields of a record that form its document: one with text or messages, or a question and its answer, answer last.

    Raises:
        DataError: if that is ambiguous.
    """
    chat = next((name for name in _CHATS if isinstance(record.get(name), list)), None)
    if chat is not None:
        return (chat,)
    strings = [name for name, value in record.items() if isinstance(value, str)]
    if "text" in strings:
        return ("text",)
    asked = next((name for name in _ASKED if name in strings), None)
    answered = next((name for name in _ANSWERED if name in strings), None)
    if asked and answered:
        return (asked, *(name for name in _ADDED if name in strings), answered)
    if len(strings) != 1:
        keys = f"the text fields are {', '.join(map(shown_bare, strings))}" if strings else "no field holds text"
        raise DataError(f"{source}: {keys}; choose one with --text-field")
    return (strings[0],)


def _system(record: Mapping[str, Any]) -> list[Turn]:
    """The system turn of a record that has it in a field of its own."""
    found = next((record[name] for name in _SYSTEM if isinstance(record.get(name), str) and record[name].strip()), None)
    return [] if found is None else [{"role": "system", "content": found}]


def _turn(value: Any, place: str) -> Turn:
    """A turn with the key names of chat templates; content in several text parts is joined."""
    if not isinstance(value, Mapping):
        raise DataError(f'{place}: a message is {shown(value)}; give {{"role": ..., "content": ...}}')
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if isinstance(content, list) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise DataError(f"{place}: a message has no role or no text; give both")
    return {"role": _ROLES.get(role, role), "content": content}
