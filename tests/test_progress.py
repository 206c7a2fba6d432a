"""How progress is shown on a terminal, in a notebook and elsewhere."""

import sys
from types import ModuleType

import pytest
from rich.console import Console

from mpq import progress

HOSTILE = "a\x1b[31m\n::error::b\u202e[red]c[/red]"
SAFE = "a\\x1b[31m\\n\\x3a:error::b\\u202e[red]c[/red]"


def test_plain_progress_estimates_from_the_first_report_of_a_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    with progress.shown_progress("analyze") as advance:
        for seconds, done, total in [(50, 1, 100), (52, 2, 100), (72, 12, 100), (90, 1, 20), (91, 2, 20), (110, 19, 20)]:
            now[0] = seconds
            advance(done, total, "conv1")
    assert capsys.readouterr().err.splitlines() == [
        "analyze 1/100: conv1",  # fifty seconds of preparation are no step
        "analyze 12/100, 3 min left: conv1",
        "analyze 1/20: conv1",
        "analyze 19/20, 1 s left: conv1",
    ]


def test_plain_progress_says_nothing_when_a_stage_is_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    with progress.shown_progress("analyze") as advance:
        now[0] = 100.0
        advance(3, 3, "conv1")
    assert capsys.readouterr().err == ""


def test_progress_names_layers_safely(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    with progress.shown_progress("analyze") as advance:
        now[0] = 50.0
        advance(1, 100, HOSTILE)
    assert capsys.readouterr().err == f"analyze 1/100: {SAFE}\n"


class Notebook(ModuleType):
    """A stand-in of `IPython.display`: what a notebook shows, every version of it."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.shown: list[str] = []

    def display(self, line: object, *, display_id: bool) -> "Notebook":
        assert display_id
        assert not self.shown  # one line, which changes
        self.shown.append(repr(line))
        return self

    def update(self, line: object) -> None:
        self.shown.append(repr(line))


def test_a_notebook_has_one_line_that_changes_and_ends_with_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, notebook = [0.0], Notebook()
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_jupyter=True, **options))
    with progress.shown_progress("analyze") as advance:
        for seconds, done in [(1.0, 1), (1.1, 2), (2.0, 3), (2.1, 4)]:
            now[0] = seconds
            advance(done, 4, HOSTILE)
    assert notebook.shown == [
        f"analyze 1/4: {SAFE}",
        f"analyze 3/4, 0 s left: {SAFE}",  # the second came too soon after the first
        f"analyze 4/4, 0 s left: {SAFE}",
    ]


def test_a_terminal_has_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.shown_progress("analyze") as advance:
        advance(3, 4, HOSTILE)
    found = capsys.readouterr()
    assert found.out == ""
    assert "3/4" in found.err
    assert SAFE in found.err


def test_progress_is_shown_only_if_wanted_and_tells_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    told: list[tuple[int, int, str]] = []
    for wanted in (False, True):
        with progress.reported("analyze", wanted=wanted, also=lambda *step: told.append(step)) as advance:
            now[0] += 50.0
            advance(1, 2, "conv1")
        assert capsys.readouterr().err == ("analyze 1/2: conv1\n" if wanted else "")
    assert told == [(1, 2, "conv1")] * 2


def test_stages_have_a_clock_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.progress.time.monotonic", lambda: now[0])
    with progress.in_turn() as stage:
        for name in ("apply", "tuning"):
            advance = stage(name)
            for seconds, done in [(1, 1), (21, 2)]:
                now[0] += seconds
                advance(done, 4, "conv1")
    assert capsys.readouterr().err == "apply 2/4, 42 s left: conv1\ntuning 2/4, 42 s left: conv1\n"
