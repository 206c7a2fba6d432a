import json
from typing import Any

import pytest

from mpq.errors import DataError
from mpq.models.inputs.turns import calls_tools, is_chat, messages_in, refuse_broken, tools_in, turn_of, without_calls

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


@pytest.mark.parametrize(
    "value", [CHAT, json.dumps(CHAT), json.dumps(CHAT, indent=1), {"role": ["user", "assistant"], "content": ["Hi", "Ho"]}]
)
def test_messages_are_found_in_each_form(value: Any) -> None:
    assert messages_in(value) == CHAT
    assert is_chat(value)


@pytest.mark.parametrize("value", ["Hi", "[{", '[{"a": 1}]', {"role": ["user"], "content": []}, {"a": ["b"]}, {}, 3, None])
def test_other_values_hold_no_messages(value: Any) -> None:
    assert messages_in(value) is None
    assert not is_chat(value)


def test_a_list_without_roles_is_no_chat() -> None:
    assert not is_chat([{"text": "a"}])
    assert not is_chat([])


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"from": "human", "value": "Hi"}, {"role": "user", "content": "Hi"}),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, "b"], "name": None}, {"role": "user", "content": "ab"}),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        ),
        ({"role": "tool", "content": "5", "tool_call_id": "1"}, {"role": "tool", "content": "5", "tool_call_id": "1"}),
    ],
)
def test_turns_have_the_key_names_of_templates_and_keep_their_other_keys(message: dict[str, Any], turn: dict[str, Any]) -> None:
    assert turn_of(message, "d") == turn


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Hi", 'd: a message is \'Hi\'; give {"role": ..., "content": ...}'),
        ({"role": "user", "content": None}, "d: a message has no role or no text; give both"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
            "d: a message has a part of type 'image_url', and only text can be read; leave it out",
        ),
    ],
)
def test_messages_without_text_are_refused_with_the_cause(message: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        turn_of(message, "d")
    assert str(caught.value) == reason


def test_written_messages_that_are_not_json_are_refused() -> None:
    refuse_broken("Hi", "messages", "d")
    with pytest.raises(DataError, match=r'^d: "messages" looks like messages but is not JSON of them \(.*\); write it with json.dumps$'):
        refuse_broken(str(CHAT), "messages", "d")


def test_calls_and_tools_are_found() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    assert calls_tools(turn)
    assert without_calls(turn) == {"role": "assistant", "content": ""}
    assert not calls_tools({**turn, "tool_calls": None})
    tools = [{"name": "f"}]
    assert tools_in(tools) == tools_in(json.dumps(tools)) == tools
    assert tools_in("hammer") is tools_in(None) is tools_in([]) is None
