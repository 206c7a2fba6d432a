"""The short form of `python -m benchmarks.faults`: a few seconds of every attack."""

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.faults.__main__ import PARTS
from benchmarks.faults.report import Fault, Row, lines_of, shortened
from tests.cli.typed import ROOT, environment

STANDING: dict[str, str] = {}
"""Parts that lose today, and why; each is taken out when its faults are mended, which a test that passes demands."""


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    line = [sys.executable, "-m", "benchmarks.faults", "--short", "--json", "--jobs", "2"]
    ran = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert ran.returncode in (0, 1), ran.stderr[-3000:]
    made: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    assert (ran.returncode == 1) == any(row["lost"] for row in made)
    return {row["part"]: row for row in made}


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[pytest.mark.xfail(strict=True, reason=STANDING[part])] if part in STANDING else []) for part in PARTS],
)
def test_nothing_is_lost(rows: dict[str, dict[str, Any]], part: str) -> None:
    row = rows[part]
    assert row["faults"] == []
    assert row["tried"] == row["survived"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the harness forks")
def test_every_part_tries_something(rows: dict[str, dict[str, Any]]) -> None:
    assert tuple(rows) == PARTS
    assert all(row["tried"] > 0 for row in rows.values())


def test_the_table_lists_each_fault_once_with_how_to_repeat_it() -> None:
    row = Row("kills")
    row.add([], seconds=0.5, held=3_000_000)
    for number in range(2):
        row.add([Fault("other bytes", "apply", "plan.yaml", f"--case {number}")], seconds=0.25)
    lines = lines_of([row], {"cores": 2})
    assert lines[1].split() == ["kills", "3", "1", "2", "0.50", "3"]
    assert lines[2].split()[0] == "all"
    assert lines[3:] == ["fault   kills: other bytes (2 times) in apply: plan.yaml", "        again: --case 0", "machine cores 2"]


def test_hostile_text_is_printed_on_one_line_and_cut() -> None:
    assert shortened("a\x1b[31m\nb" + "x" * 500, most=10) == "a [31m bxx… (508 characters)"
