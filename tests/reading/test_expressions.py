"""Regular expressions of strangers: the right answer, or one line in seconds."""

import signal
import sys
import threading
import time

import pytest

from mpq.errors import FormatError
from mpq.reading.expressions import Expression

ENDLESS = ("(a|a|.)*(.*.*)*x$", "(a*)*b", "(.*)*(.*)*(.*)*x", "(a|aa)+$", ".*.*.*.*.*.*.*.*x", "a?" * 30 + "a" * 30, r"(\w+\w*)+:")
NAME = "a" * 120 + "!"


def _search_all(made: Expression, names: list[str]) -> None:
    for name in names:
        made.fullmatch(name)


@pytest.mark.parametrize(
    ("text", "name", "fullmatch", "match", "search"),
    [
        ("a", "a", True, True, True),
        ("a", "ab", False, True, True),
        ("b", "ab", False, False, True),
        (r"model\.layers\.(?:[0-9]|1[0-9])\..*", "model.layers.12.mlp", True, True, True),
        (r"(?!.*q_proj).*proj", "layers.0.k_proj", True, True, True),
        (r"(?!.*q_proj).*proj", "layers.0.q_proj", False, False, True),
    ],
)
def test_it_matches_as_pythons_do(text: str, name: str, fullmatch: bool, match: bool, search: bool) -> None:
    made = Expression(text, error=FormatError)
    assert (made.fullmatch(name), made.match(name), made.search(name)) == (fullmatch, match, search)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer that stops a search")
@pytest.mark.parametrize("text", ENDLESS)
def test_one_that_would_search_for_ever_is_refused_in_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.reading.expressions.EXPRESSION_SECONDS", 0.2)
    made, began = Expression(text, error=FormatError), time.process_time()
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(FormatError, match=r"takes more than 0\.2 s to search all names: write it without nested repeats"):
        _search_all(made, [NAME] * 1000)
    assert time.process_time() - began < 2
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer that stops a search")
def test_all_names_together_have_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.reading.expressions.EXPRESSION_SECONDS", 0.3)
    made, began = Expression("(a|a)*b", error=FormatError), time.process_time()
    with pytest.raises(FormatError, match="takes more than"):
        _search_all(made, ["a" * 16] * 100_000)
    assert time.process_time() - began < 2


def test_in_another_thread_it_matches_too() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(Expression("a+", error=FormatError).fullmatch("aaa")))
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(", r"'\(' is not a regular expression: missing \)"),
        ("x" * 2001, r"has more than 2,000 characters: write a shorter one"),
        ("(" * 1999, "is not a regular expression"),
        ("a{99999999999999999999}", "is not a regular expression"),
    ],
)
def test_what_is_not_one_or_too_long_is_refused(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        Expression(text, error=FormatError)
    assert len(str(caught.value)) < 300
