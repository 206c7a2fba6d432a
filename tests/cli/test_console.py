"""What every command says and how."""

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
