import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.errors import FormatError, MpqError
from mpq.limits import MESSAGE_TEXT, SHOWN_TEXT
from mpq.shown import (
    bits_cell,
    bits_text,
    by_reason,
    counted,
    duration,
    json_escaped,
    markdown,
    markdown_code,
    one_line,
    printable,
    shown,
    times_smaller,
    visible,
)

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.layers.0.q_proj", "model.layers.0.q_proj"),
        ("é 漢字 😀 ö_ß", "é 漢字 😀 ö_ß"),
        ("a\nb\tc\rd\x00\x1b[31m", "a\\nb\\tc\\rd\\x00\\x1b[31m"),
        ("a\u202eb\u2066c\u2028d\u200be\ufefff\udc80", "a\\u202eb\\u2066c\\u2028d\\u200be\\ufefff\\udc80"),
        ("\U000e0041", "\\U000e0041"),
        ("::error file=a::b", "\\x3a:error file=a::b"),
        ("  ::x::", "  \\x3a:x::"),
        ("a ::set-output name=x::y", "a \\x3a:set-output name=x::y"),
        ("a::b, at::native::c", "a::b, at::native::c"),
        ("##[error]x", "#\\x23[error]x"),
        ("a ##vso[task.setvariable]x", "a #\\x23vso[task.setvariable]x"),
    ],
)
def test_text_is_shown_on_one_line_without_control_characters_and_commands(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected


def test_every_character_that_formats_is_escaped() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert not [each for each in visible(everything) if unicodedata.category(each) in UNSEEN and each != "\n"]


@given(st.text(st.characters()))
def test_nothing_unseen_is_left_of_any_text(text: str) -> None:
    for made in (printable(text), shown(text), one_line(text), markdown(text), markdown_code(text), str(MpqError(text))):
        assert not [each for each in made if unicodedata.category(each) in UNSEEN]
        assert "##[" not in made
        assert not made.lstrip().startswith("::")
    assert [each for each in visible(text) if unicodedata.category(each) in UNSEEN] == ["\n"] * text.count("\n")


@given(st.dictionaries(st.text(), st.text()))
def test_json_says_the_same_when_it_is_escaped(value: dict[str, str]) -> None:
    text = json_escaped(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert not [each for each in text if unicodedata.category(each) in UNSEEN and each != "\n"]


def test_a_shown_value_is_short() -> None:
    deep = {"a": [[[[[[[[1]]]]]]]]}
    for value in ("x" * 10**6, ["x" * 10**6] * 1000, 10**100_000, deep, "\x1b" * 10**5, b"x" * 10**6, [10**5000] * 3):
        assert len(shown(value)) <= SHOWN_TEXT


def test_a_message_is_one_short_line() -> None:
    text = str(FormatError("a\nb\x1b[0m " + "x" * 10**6))
    assert text.startswith("a b\\x1b[0m xxx")
    assert len(text) == MESSAGE_TEXT


def test_markdown_holds_no_link_code_or_cell() -> None:
    assert markdown("[x](http://a) ![y](z) `q` a|b <b> a_b") == r"\[x\](http://a) !\[y\](z) \`q\` a\|b &lt;b> a_b"
    assert markdown_code("a`|b") == "`a'\\|b`"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4.496452, "4.496"), (4.4965, "4.496"), (4.4975, "4.498"), (4.49651, "4.496"), (4.4966, "4.497"), (4.5, "4.500"), (16, "16.000")],
)
def test_bits_look_the_same_for_an_exact_value_and_for_its_four_decimals_in_a_file(value: float, expected: str) -> None:
    assert bits_cell(value) == bits_cell(round(value, 4)) == expected


def test_names_are_grouped_by_their_reason_in_the_first_order_of_both() -> None:
    found = by_reason({"b": "wide", "a": "unseen", "c": "wide"})
    assert list(found.items()) == [("wide", ["b", "c"]), ("unseen", ["a"])]
    assert by_reason({}) == {}


def test_bits_in_a_sentence_have_no_final_zeros() -> None:
    assert [bits_text(value) for value in (4.4965, 4.5, 16.0, 16.125, 0.0)] == ["4.496", "4.5", "16", "16.125", "0"]


def test_a_length_of_time_has_the_unit_of_its_size() -> None:
    assert [duration(seconds) for seconds in (0, 119, 120, 7190, 7200, 86400)] == ["0 s", "119 s", "2 min", "120 min", "2 h", "24 h"]


def test_a_number_has_the_noun_of_its_count() -> None:
    assert [
        counted(1, "layer"),
        counted(2, "layer"),
        counted(1, "pass", "passes"),
        counted(0, "pass", "passes"),
        counted(1200, "call"),
    ] == [
        "1 layer",
        "2 layers",
        "1 pass",
        "0 passes",
        "1,200 calls",
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(397, 100, "3.97 times smaller"), (5, 5, "1.00 times smaller"), (100, 113, "1.13 times larger")]
)
def test_a_file_that_grew_is_called_larger(before: float, after: float, expected: str) -> None:
    assert times_smaller(before, after) == expected
