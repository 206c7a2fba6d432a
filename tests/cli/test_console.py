"""What every command says and how."""

import json
from collections.abc import Callable

import pytest

from mpq.cli import console


@pytest.fixture(autouse=True)
def _speaking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.voice, "quiet", False)


HOSTILE = "a\x1b[31m\n::error::b\u202e[red]c[/red][link=http://x]d##[error]:smile:"
SAFE = "a\\x1b[31m\\n\\x3a:error::b\\u202e[red]c[/red][link=http://x]d#\\x23[error]:smile:"


def test_layers_without_input_statistics_are_named_by_reason_and_many_are_counted() -> None:
    lines = console.fallback_lines({**{f"a{at}": "a lookup table" for at in range(7)}, "b": "its inputs are not finite"})
    start = "quantized by weight error alone, without input statistics"
    assert lines == [f"{start}: a0, a1, a2, a3, a4 and 2 more (a lookup table)", f"{start}: b (its inputs are not finite)"]


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


def test_what_rounding_brought_below_zero_is_zero_with_a_footnote(capsys: pytest.CaptureFixture[str]) -> None:
    assert (console.figure(-3e-8, 1e-8), console.figure(-2e-6), console.figure(0.0)) == ("0* ±1e-08", "-2.00e-06", "0")
    console.print_table(["layer", "error"], [["a", console.figure(-3e-8)], ["b", "1"]])
    assert capsys.readouterr().out.splitlines()[-1] == "* rounding errors made it slightly negative: it is 0"
    console.print_table(["layer", "error"], [["a", "0"]])
    assert "rounding" not in capsys.readouterr().out
    console.say(f"KL {console.figure(-3e-8)}")
    assert capsys.readouterr().err == "KL 0* (* rounding errors made it slightly negative: it is 0)\n"


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        ({}, "peak memory: not available on this system"),
        ({"peak_memory_bytes": 412_300_000}, "peak memory 412 MB, with Python and torch"),
        (
            {"peak_memory_bytes": 412_300_000, "expected_memory_bytes": 430_000_000},
            "peak memory 412 MB, with Python and torch; 430 MB expected",
        ),
    ],
)
def test_the_peak_is_told_beside_what_was_expected(cost: dict[str, int], line: str) -> None:
    assert console.peak_line({"cost": cost}) == line
