import importlib
from pathlib import Path

import pytest
import typer

from tests.cli.typed import done, files, refused, typed


def test_the_demo_works_in_its_own_folder_and_comes_back(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr("mpq.cli.demo._steps", lambda budget: seen.append(Path.cwd()))
    assert "files are in kept" in done("demo chars --keep kept").out
    assert "the files were temporary" in done("demo").out
    assert (seen[0], Path.cwd()) == (fresh / "kept", fresh)
    assert not seen[1].exists()
    assert files() == sorted(["calibration.pt", "model.pt2", "test.pt", "kept", "kept/calibration.pt", "kept/model.pt2", "kept/test.pt"])


def test_a_demo_whose_step_fails_stops_there(fresh: Path) -> None:
    ran = typed("demo --budget 1bits --keep kept")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("mpq: budget 1bits (layers) cannot be met: ")
    assert "$ mpq apply" not in ran.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--budget much", "'much' is not a budget: "),
        ("--budget 0bits", "budget '0bits' is not positive: "),
        ("letters", "'letters'"),
    ],
)
def test_what_is_no_budget_or_demo_is_refused_before_anything_is_written(fresh: Path, options: str, reason: str) -> None:
    assert reason in refused(f"demo {options}", 2)


def test_each_step_is_shown_as_it_is_typed_and_the_first_that_fails_is_the_last(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    codes = iter([0, 0, 1])

    def app(words: list[str], *, standalone_mode: bool) -> int:
        ran.append(words)
        return next(codes)

    _steps = importlib.import_module("mpq.cli.demo")._steps
    monkeypatch.setattr(importlib.import_module("mpq.cli.main"), "app", app)
    with pytest.raises(typer.Exit) as stop:
        _steps("5bits")
    assert stop.value.exit_code == 1
    assert [" ".join(words) for words in ran] == ["analyze model.pt2 --calib calibration.pt", "search --budget 5bits", "apply plan.yaml"]


def test_a_quiet_demo_takes_quiet_steps(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(importlib.import_module("mpq.cli.main"), "app", lambda words, *, standalone_mode: ran.append(words))
    assert done("--quiet demo").err == ""
    assert {words[0] for words in ran} == {"--quiet"}
    assert len(ran) == 5
