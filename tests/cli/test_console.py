"""What every command says and how."""

import json
from collections.abc import Callable

import pytest

from mpq.cli import console


@pytest.fixture(autouse=True)
def _speaking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.voice, "quiet", False)


def test_plain_progress_estimates_from_the_first_report_of_a_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.cli.console.time.monotonic", lambda: now[0])
    with console.progress("analyze") as advance:
        for seconds, done, total in [(50, 1, 100), (52, 2, 100), (72, 12, 100), (90, 1, 20), (91, 2, 20), (110, 19, 20)]:
            now[0] = seconds
            advance(done, total, "conv1")
    assert capsys.readouterr().err.splitlines() == [
        "analyze 1/100: conv1",  # fifty seconds of preparation are no step
        "analyze 12/100, 176 s left: conv1",
        "analyze 1/20: conv1",
        "analyze 19/20, 1 s left: conv1",
    ]


def test_plain_progress_says_nothing_when_a_stage_is_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.cli.console.time.monotonic", lambda: now[0])
    with console.progress("analyze") as advance:
        now[0] = 100.0
        advance(3, 3, "conv1")
    assert capsys.readouterr().err == ""


HOSTILE = "a\x1b[31m\n::error::b\u202e[red]c[/red][link=http://x]d##[error]:smile:"
SAFE = "a\\x1b[31m\\n\\x3a:error::b\\u202e[red]c[/red][link=http://x]d#\\x23[error]:smile:"


@pytest.mark.parametrize("say", [console.say, console.warn])
def test_narration_holds_no_control_characters_commands_or_markup(say: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert capsys.readouterr().err.endswith(f"{SAFE}\n".replace("\\n", " ") if say is console.warn else f"{SAFE}\n")


def test_lines_and_tables_hold_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_lines([HOSTILE, "x"])
    assert capsys.readouterr().out == f"{SAFE}\nx\n"
    console.print_table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], title=HOSTILE)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [SAFE, f"{SAFE}  {'b'.rjust(len(SAFE))}", f"{SAFE}  {SAFE}"]


def test_a_table_on_a_terminal_shows_markup_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    console.print_table(["layer"], [[HOSTILE]])
    out = capsys.readouterr().out
    assert SAFE in out
    assert "\x1b[31m" not in out


def test_json_says_the_same_and_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({HOSTILE: [HOSTILE, "\x9b\u2028"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {HOSTILE: [HOSTILE, "\x9b\u2028"]}
    assert "##[" not in out
    assert not {"\x1b", "\x9b", "\u2028", "\u202e"} & set(out)


def test_progress_names_layers_safely(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("mpq.cli.console.time.monotonic", lambda: now[0])
    with console.progress("analyze") as advance:
        now[0] = 50.0
        advance(1, 100, HOSTILE)
    assert capsys.readouterr().err == f"analyze 1/100: {SAFE}\n"


def test_what_rounding_brought_below_zero_is_zero_with_a_footnote(capsys: pytest.CaptureFixture[str]) -> None:
    assert (console.figure(-3e-8, 1e-8), console.figure(-2e-6), console.figure(0.0)) == ("0* ±1e-08", "-2.00e-06", "0")
    console.print_table(["layer", "error"], [["a", console.figure(-3e-8)], ["b", "1"]])
    assert capsys.readouterr().out.splitlines()[-1] == "* measured a little below zero, by rounding: it is 0"
    console.print_table(["layer", "error"], [["a", "0"]])
    assert "rounding" not in capsys.readouterr().out
    console.say(f"KL {console.figure(-3e-8)}")
    assert capsys.readouterr().err == "KL 0* (* measured a little below zero, by rounding: it is 0)\n"
