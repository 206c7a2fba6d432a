import json
from typing import Any

import pytest

from mpq.errors import DataError
from mpq.models.inputs.conversations import Documents, fields_of


class Tokenizer:
    """One with a template that writes each turn as role:content; and refuses a role of "tool"."""

    chat_template = "…"

    def apply_chat_template(self, turns: list[dict[str, Any]], *, tokenize: bool, tools: list[dict[str, str]] | None = None) -> str:
        assert not tokenize
        if any(turn["role"] == "tool" for turn in turns):
            raise ValueError("no tools")
        return "".join(f"<{turn['role']}:{turn['content']}>" for turn in turns)


class ToolTokenizer(Tokenizer):
    """One whose template writes tools, and calls of them."""

    def apply_chat_template(self, turns: list[dict[str, Any]], *, tokenize: bool, tools: list[dict[str, str]] | None = None) -> str:
        called = [call["name"] for turn in turns for call in turn.get("tool_calls", [])]
        return f"{[tool['name'] for tool in tools or []]}{super().apply_chat_template(turns, tokenize=tokenize)}{called}"


HI = "<user:Hi><assistant:Ho>"
JOINED = "Hi\n\nHo\n\nHi"
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]}],
    "text": "no",
}
SHARED = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], "id": "1"}
PAIR = {"prompt": "Hi", "response": "Ho", "source": "x"}
ASKED = {"instruction": "Add", "input": "1, 2", "output": "3"}


@pytest.mark.parametrize(
    ("record", "fields", "rendered", "joined"),
    [
        (CHAT, ("messages",), "<user:Hi><assistant:Ho>", "Hi\n\nHo"),
        (SHARED, ("conversations",), "<user:Hi><assistant:Ho>", "Hi\n\nHo"),
        (PAIR, ("prompt", "response"), "<user:Hi><assistant:Ho>", "Hi\n\nHo"),
        (ASKED, ("instruction", "input", "output"), "<user:Add\n\n1, 2><assistant:3>", "Add\n\n1, 2\n\n3"),
        ({**ASKED, "input": ""}, ("instruction", "input", "output"), "<user:Add><assistant:3>", "Add\n\n3"),
        ({**SHARED, "system": "Be kind"}, ("conversations",), "<system:Be kind><user:Hi><assistant:Ho>", "Be kind\n\nHi\n\nHo"),
        ({**PAIR, "system": ""}, ("prompt", "response"), "<user:Hi><assistant:Ho>", "Hi\n\nHo"),
        (
            {"system_prompt": "Be kind", "instruction": "Why?", "context": "Rain.", "response": "So."},
            ("instruction", "context", "response"),
            "<system:Be kind><user:Why?\n\nRain.><assistant:So.>",
            "Be kind\n\nWhy?\n\nRain.\n\nSo.",
        ),
        ({"question": "Why?", "answer": "So."}, ("question", "answer"), "<user:Why?><assistant:So.>", "Why?\n\nSo."),
        (
            {"prompt": CHAT["messages"], "chosen": SHARED["conversations"][:1], "rejected": "no"},
            ("prompt", "chosen"),
            HI + "<user:Hi>",
            JOINED,
        ),
        ({"chosen": CHAT["messages"], "rejected": []}, ("chosen",), HI, "Hi\n\nHo"),
        ({"chosen": "a", "rejected": "b"}, ("chosen",), "a", "a"),
        ({"prompt": CHAT["messages"][:1]}, ("prompt",), "<user:Hi>", "Hi"),
        ({"messages": json.dumps(CHAT["messages"]), "id": "1"}, ("messages",), HI, "Hi\n\nHo"),
        ({"dialog": CHAT["messages"], "id": "1"}, ("dialog",), HI, "Hi\n\nHo"),
        ({"text": "a", "prompt": "b", "response": "c"}, ("text",), "a", "a"),
        ({"review": "a", "label": "3.5"}, ("review",), "a", "a"),
        ({"story": "a", "id": 3}, ("story",), "a", "a"),
    ],
)
def test_records_of_all_kinds_become_documents(record: dict[str, Any], fields: tuple[str, ...], rendered: str, joined: str) -> None:
    assert fields_of(record, "d.jsonl") == fields
    assert Documents(Tokenizer(), None, "d.jsonl").of(record, 1) == rendered
    assert Documents(None, None, "d.jsonl").of(record, 1) == joined


def test_a_field_that_is_asked_for_is_read_whether_text_or_messages() -> None:
    assert Documents(None, "text", "d.jsonl").of(CHAT, 1) == "no"
    assert Documents(Tokenizer(), "dialog", "d.jsonl").of({"dialog": CHAT["messages"]}, 1) == "<user:Hi><assistant:Ho>"


def test_notes_say_how_turns_become_text() -> None:
    for tokenizer, words in (
        (Tokenizer(), "formatted with the tokenizer's chat template"),
        (None, "joined by blank lines, because the tokenizer has no chat template"),
    ):
        made = Documents(tokenizer, None, "d.jsonl")
        made.of(PAIR, 1)
        made.of(PAIR, 2)
        assert made.notes == [f"prompt, response: turns {words}"]
    plain = Documents(None, None, "d.jsonl")
    plain.of({"text": "a"}, 1)
    assert plain.notes == []


@pytest.mark.parametrize(
    ("record", "note"),
    [
        ({"title": "a", "paragraphs": [{"context": "b"}]}, "text is read from 'title'; not read: paragraphs"),
        ({"story": "a", "id": 3}, "text is read from 'story'"),
        ({"chosen": "a", "rejected": "b"}, "text is read from 'chosen'; rejected is not read"),
        ({**PAIR, "rejected": "b"}, "prompt, response: turns joined by blank lines, because the tokenizer has no chat template"),
    ],
)
def test_notes_name_what_is_read_and_what_is_not(record: dict[str, Any], note: str) -> None:
    made = Documents(None, None, "d.jsonl")
    made.of(record, 1)
    assert made.notes == [note]


CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}


def test_tools_and_calls_go_through_the_template() -> None:
    made = Documents(ToolTokenizer(), None, "d.jsonl")
    record = {"messages": [CHAT["messages"][0], CALL], "tools": [{"name": "add"}]}
    assert made.of(record, 1) == made.of({**record, "tools": json.dumps(record["tools"])}, 2) == "['add']<user:Hi><assistant:>['add']"
    assert made.notes == ["messages: turns formatted with the tokenizer's chat template"]


def test_tools_and_calls_that_are_not_written_are_noted_once() -> None:
    record = {"messages": [CHAT["messages"][0], {**CALL, "content": "Ho"}], "tools": [{"name": "add"}]}
    for tokenizer, reason in ((Tokenizer(), "the chat template does not write them"), (None, "the tokenizer has no chat template")):
        made = Documents(tokenizer, None, "d.jsonl")
        for number in (1, 2):
            made.of(record, number)
        assert made.notes[1:] == [f"{name}: not part of the text, because {reason}" for name in ("tools", "tool_calls")]


def test_a_call_without_text_needs_a_template() -> None:
    with pytest.raises(DataError, match=r"^d, line 1: a message calls a tool, and the tokenizer has no chat template to write that; leave"):
        Documents(None, None, "d").of({"messages": [CALL]}, 1)


@pytest.mark.parametrize(
    ("first", "record", "reason"),
    [
        (PAIR, {"prompt": "Hi", "response": 5}, 'd.jsonl, row 2: "response" holds 5, which is not text; every row needs text there'),
        (CHAT, {"messages": "[{'role': 1}]"}, 'd.jsonl, row 2: "messages" looks like messages but is not JSON of them ('),
        (PAIR, {"prompt": "Hi"}, 'd.jsonl, row 2: no text under "response"; every row needs it'),
        (CHAT, {"messages": "Hi", "text": 3}, "d.jsonl, row 2: "),
        (CHAT, {"messages": ["Hi"]}, 'd.jsonl, row 2: a message is \'Hi\'; give {"role": ..., "content": ...}'),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "d.jsonl, row 2: a message has no role or no text; give both"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "d.jsonl, row 2: the tokenizer's chat template refuses it (no tools)"),
        (CHAT, {"messages": [{"role": "user", "content": "\ud83d"}]}, "d.jsonl, row 2: the text contains half of a surrogate pair"),
    ],
)
def test_a_record_of_another_kind_than_the_first_is_refused(first: dict[str, Any], record: dict[str, Any], reason: str) -> None:
    made = Documents(Tokenizer(), None, "d.jsonl", unit="row")
    made.of(first, 1)
    if reason.endswith(": "):
        assert made.of(record, 2) == "Hi"  # a text under the name of a chat is a text
        return
    with pytest.raises(DataError) as caught:
        made.of(record, 2)
    assert str(caught.value).startswith(reason)


def test_several_texts_without_a_known_name_are_not_guessed() -> None:
    with pytest.raises(DataError, match=r"^d: the text fields are a, b; choose one with --text-field$"):
        fields_of({"a": "x", "b": "y"}, "d")
    with pytest.raises(DataError, match=r"^d: the chats are a, b; choose one with --text-field$"):
        fields_of({"a": CHAT["messages"], "b": CHAT["messages"]}, "d")
    with pytest.raises(
        DataError, match=r"^d: no field holds text \(a is 1\); give records with text, or with messages of role and content$"
    ):
        fields_of({"a": 1}, "d")
