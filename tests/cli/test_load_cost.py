import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mpq.cli.load_cost import loading_of
from mpq.errors import MpqError
from mpq.runtime.load_cost import Loading


class Ran:
    """A process that was started, and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, out: str = "", err: str = "") -> None:
        self.line: list[str] = []
        self.options: dict[str, Any] = {}

        def run(line: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            self.line, self.options = line, options
            return subprocess.CompletedProcess(line, code, out, err)

        monkeypatch.setattr("mpq.cli.load_cost.subprocess.run", run)


def figures() -> dict[str, Any]:
    return {each.name: number for number, each in enumerate(fields(Loading))}


def test_the_figures_are_those_that_the_process_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(monkeypatch, 0, json.dumps(figures()))
    found = loading_of("packed", Path("a.safetensors"), reference=Path("m.pt2"), factory="a.b:c", trust=True, dtype="bf16")
    assert found == Loading(**figures())
    assert ran.line == [sys.executable, "-P", "-m", "mpq.cli.load_cost", "packed", "a.safetensors", "m.pt2", "a.b:c", "trust", "bf16"]


def test_what_is_not_chosen_is_empty_and_this_mpq_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    ran = Ran(monkeypatch, 0, json.dumps(figures()))
    loading_of("reference", Path("a"), reference=Path("m"), factory=None, trust=False)
    assert ran.line[-3:] == ["", "", ""]
    first, last = ran.options["env"]["PYTHONPATH"].split(":")
    assert (Path(first, "mpq", "cli", "load_cost.py").is_file(), last) == (True, "elsewhere")


@pytest.mark.parametrize(
    ("err", "reason"), [("Traceback\n  x\nValueError: bad\n", "ValueError: bad"), ("", "no reason given"), ("  \n", "no reason given")]
)
def test_a_process_that_fails_gives_its_last_line(monkeypatch: pytest.MonkeyPatch, err: str, reason: str) -> None:
    Ran(monkeypatch, 1, err=err)
    with pytest.raises(MpqError) as error:
        loading_of("packed", Path("a"), reference=Path("m"), factory=None, trust=False)
    assert str(error.value) == f"the packed model cannot be loaded in a separate process: {reason}"
