import pytest

from mpq.cli.search_texts import numbers, pairs, parts, ties
from mpq.errors import UsageError


def test_a_pair_ends_at_its_last_sign() -> None:
    assert pairs(["conv1=int8", "re:a=b=int4"], "--pin PATTERN=SCHEME", "conv1=int8") == {"conv1": "int8", "re:a=b": "int4"}
    assert pairs(None, "--pin PATTERN=SCHEME", "conv1=int8") == {}


@pytest.mark.parametrize("text", ["conv1", "=int8", "conv1=", ""])
def test_what_is_not_a_pair_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        pairs([text], "--pin PATTERN=SCHEME", "conv1=int8")
    assert str(error.value) == f"--pin '{text}' is not PATTERN=SCHEME: write for example --pin conv1=int8"


def test_parts_are_between_commas_without_blanks() -> None:
    assert parts(" 8, 16 ,,4 ") == ("8", "16", "4")


def test_numbers_are_read_and_others_refused() -> None:
    assert numbers({"a.csv": "3.5"}) == {"a.csv": 3.5}
    with pytest.raises(UsageError, match=r"x is not a number"):
        numbers({"a.csv": "x"})


def test_ties_are_groups_of_two_or_more_or_auto() -> None:
    assert ties(["a,b", "auto"]) == (("a", "b"), "auto")
    assert ties(None) == ()
    with pytest.raises(UsageError, match=r"names fewer than two layers"):
        ties(["a"])
