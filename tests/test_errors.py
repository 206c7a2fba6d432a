import re

import pytest

from mpq import errors
from mpq.errors import MpqError, UsageError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MpqError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_exit_code_of_its_family(kind: type[MpqError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 3)
    assert kind.__doc__


def test_the_families_are_those_that_the_page_draws() -> None:
    drawn = re.findall(r"── (\w+) +(\d)?", str(errors.__doc__))
    assert {name: int(code or UsageError.exit_code) for name, code in drawn} == {
        kind.__name__: kind.exit_code for kind in KINDS if kind is not MpqError
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [("plain", "plain"), ("two\nlines", "two lines"), ("", ""), ("\x1b[31mred", "\\x1b[31mred"), ("a\u202eb", "a\\u202eb")],
)
def test_a_message_is_one_printable_line(given: str, expected: str) -> None:
    assert str(MpqError(given)) == expected


def test_a_message_of_any_length_is_cut() -> None:
    assert len(str(MpqError("x" * 1_000_000))) < 10_000
