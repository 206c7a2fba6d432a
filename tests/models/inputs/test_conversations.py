from typing import Any

import pytest

from mpq.errors import DataError
from mpq.models.inputs.conversations import Documents, fields_of


class Tokenizer:
    """One with a template that writes each turn as role:content; and refuses a role of "tool"."""

    chat_template = "…"

    def apply_chat_template(self, turns: list[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        if any(turn["role"] == "tool" for turn in turns):
            raise ValueError("no tools")
        return "".join(f"<{turn['role']}:{turn['content']}>" for turn in turns)


CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]}], "text": "no"}
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
        ({"text": "a", "prompt": "b", "response": "c"}, ("text",), "a", "a"),
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
    ("first", "record", "reason"),
    [
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
    with pytest.raises(DataError, match=r"^d: no field holds text; choose one with --text-field$"):
        fields_of({"a": 1}, "d")
