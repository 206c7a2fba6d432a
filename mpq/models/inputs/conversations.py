"""Turns common kinds of records into documents: plain text, chats, prompts with responses, instructions.

    {"text": ...}                                                   the text
    {"messages": [{"role": "user", "content": ...}, ...]}           a chat (`turns.py`); also "conversations", or the only chat
    {"prompt": ..., "response": ...}                                two turns or two chats; also completion, output, answer, chosen
    {"chosen": ..., "rejected": ...}                                the chosen text or chat
    {"instruction": ..., "input": ..., "output": ...}               two turns, input or context second; also question, answer
    {"system": ..., "tools": ..., ...}                              with any of these turns: a system turn before them, and tools
    {"anything": ...}                                               the only field that holds text

The tokenizer's chat template turns them into text, so that a model sees what it was trained on. Without a template, turns are joined by
blank lines, and the notes say so. They also say what a template leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpq.errors import DataError
from mpq.models.inputs.turns import Turn, calls_tools, is_chat, messages_in, refuse_broken, tools_in, turn_of, without_calls
from mpq.shown import encodes, first_line, listed, shown, shown_bare

_CHATS = ("messages", "conversations", "conversation")
_ASKED = ("prompt", "instruction", "question", "query")
_ANSWERED = ("response", "completion", "output", "answer", "chosen", "answers")
_ADDED = ("input", "context")
_SYSTEM = ("system", "system_prompt")
_LISTED = 4


class Documents:
    """Makes one document from each record; the first record decides which fields are read.

    Args:
        tokenizer: the tokenizer with the chat template; None if there is none.
        field: the field to read, with text or messages; None looks for one.
        source: how the user wrote the data, for messages.
        unit: the unit of a record: "line" or "row".
        notes: receives notes on how records are read, for people.
    """

    def __init__(self, tokenizer: Any, field: str | None, source: str, *, unit: str = "line", notes: list[str] | None = None) -> None:
        self._tokenizer, self._field, self._source, self._unit = tokenizer, field, source, unit
        self._kind: tuple[str, ...] | None = None
        self._examined: set[str] = set()
        self.notes: list[str] = [] if notes is None else notes

    def of(self, record: Mapping[str, Any], number: int) -> str:
        """The document of one record.

        Raises:
            DataError: if it lacks a field that the first record has, or has no text.
        """
        if self._kind is None:
            self._kind = (self._field,) if self._field else fields_of(record, self._source)
            self._note(record)
        place = f"{self._source}, {self._unit} {number}"
        if len(self._kind) == 1 and messages_in(record.get(self._kind[0])) is None:
            found = self._text(record, self._kind[0], place)
        else:
            found = self._rendered(self._turns(record, place), record.get("tools"), place)
        if not encodes(found):
            raise DataError(f"{place}: the text contains half of a surrogate pair; write whole characters")
        return found

    @property
    def _template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    def _note(self, record: Mapping[str, Any]) -> None:
        assert self._kind is not None
        fields = ", ".join(self._kind)
        chosen = "; rejected is not read" if self._kind[-1] == "chosen" and "rejected" in record else ""
        if len(self._kind) == 1 and messages_in(record.get(self._kind[0])) is None:
            if self._kind[0] != "text" and self._field is None:
                others = [shown_bare(name) for name, value in record.items() if isinstance(value, (list, dict))]
                kept = f"; not read: {listed(others, _LISTED)}" if others else ""
                self.notes.append(f"text is read from {shown(self._kind[0])}{chosen or kept}")
        elif self._template:
            self.notes.append(f"{fields}: turns formatted with the tokenizer's chat template{chosen}")
        else:
            self.notes.append(f"{fields}: turns joined by blank lines, because the tokenizer has no chat template{chosen}")

    def _turns(self, record: Mapping[str, Any], place: str) -> list[Turn]:
        assert self._kind is not None
        *asked, answered = self._kind
        turns = self._spoken(record, asked, "user", place) if asked else []
        turns += self._spoken(record, [answered], "assistant", place)
        return turns if any(turn["role"] == "system" for turn in turns) else [*_system(record), *turns]

    def _spoken(self, record: Mapping[str, Any], names: Sequence[str], role: str, place: str) -> list[Turn]:
        """The turns of a chat, or one turn of `role` with the text of all fields."""
        chat = messages_in(record.get(names[0]))
        if chat is not None:
            return [turn_of(one, place) for one in chat]
        return [{"role": role, "content": "\n\n".join(filter(None, (self._text(record, name, place) for name in names)))}]

    def _text(self, record: Mapping[str, Any], name: str, place: str) -> str:
        value = record.get(name)
        if value is None and name in _ADDED:
            return ""
        if value is not None and not isinstance(value, str):
            raise DataError(f'{place}: "{name}" holds {shown(value)}, which is not text; every {self._unit} needs text there')
        if value is None:
            raise DataError(f'{place}: no text under "{name}"; every {self._unit} needs it')
        if name in _CHATS:
            refuse_broken(value, name, place)
        return value

    def _rendered(self, turns: Sequence[Turn], tools: Any, place: str) -> str:
        called = any(map(calls_tools, turns))
        if not self._template:
            if any(calls_tools(turn) and not turn["content"] for turn in turns):
                raise DataError(f"{place}: a message calls a tool, and the tokenizer has no chat template to write that; leave it out")
            reason = "the tokenizer has no chat template"
            self._check("tools", bool(tools), lambda: True, reason)
            self._check("tool_calls", called, lambda: True, reason)
            return "\n\n".join(turn["content"] for turn in turns)
        given, reason = tools_in(tools), "the chat template does not write them"
        found = self._applied(turns, given, place)
        self._check("tools", bool(tools), lambda: given is None or self._applied(turns, None, place) == found, reason)
        self._check("tool_calls", called, lambda: self._applied([without_calls(turn) for turn in turns], given, place) == found, reason)
        return found

    def _check(self, name: str, is_there: bool, left_out: Callable[[], bool], reason: str) -> None:
        """Note whether something is left out of the text; only its first occurrence is examined."""
        if is_there and name not in self._examined:
            self._examined.add(name)
            if left_out():
                self.notes.append(f"{name}: not part of the text, because {reason}")

    def _applied(self, turns: Sequence[Turn], tools: list[Any] | None, place: str) -> str:
        given = {} if tools is None else {"tools": tools}
        try:
            return str(self._tokenizer.apply_chat_template(list(turns), tokenize=False, **given))
        except Exception as error:  # a template may raise any error
            raise DataError(f"{place}: the tokenizer's chat template refuses it ({first_line(error)})") from error


def fields_of(record: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The fields of a record that form its document: one with text or messages, or a question and its answer, answer last.

    Raises:
        DataError: if that is ambiguous.
    """
    known = known_fields(record)
    if known:
        return known
    chats = [name for name, value in record.items() if is_chat(value)]
    texts = [name for name, value in record.items() if isinstance(value, str)]
    wordy = [name for name in texts if not _is_number(record[name])] or texts
    found = chats or wordy
    if len(found) == 1:
        return (found[0],)
    if found:
        kind = "chats" if chats else "text fields"
        raise DataError(f"{source}: the {kind} are {', '.join(map(shown_bare, found))}; choose one with --text-field")
    values = listed([f"{shown_bare(name)} is {shown(value, 30)}" for name, value in record.items()], _LISTED) or "it is empty"
    raise DataError(f"{source}: no field holds text ({values}); give records with text, or with messages of role and content")


def known_fields(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that form a document by their names and kinds; empty if there are none."""
    chat = next((name for name in _CHATS if name in record and messages_in(record[name]) is not None), None)
    if chat is not None:
        return (chat,)
    spoken = [name for name, value in record.items() if isinstance(value, str) or is_chat(value)]
    if isinstance(record.get("text"), str):
        return ("text",)
    asked = next((name for name in _ASKED if name in spoken), None)
    answered = next((name for name in _ANSWERED if name in spoken), None)
    if asked and answered:
        return (asked, *(name for name in _ADDED if name in spoken), answered)
    return ("chosen",) if "chosen" in spoken and "rejected" in record else ()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _system(record: Mapping[str, Any]) -> list[Turn]:
    """The system turn of a record that has it in a field of its own."""
    found = next((record[name] for name in _SYSTEM if isinstance(record.get(name), str) and record[name].strip()), None)
    return [] if found is None else [{"role": "system", "content": found}]
