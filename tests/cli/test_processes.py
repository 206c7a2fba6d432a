"""What only a process of its own can show: start-up, kills, Ctrl-C, a full disk, plain output."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpq.records.sensitivity import read_sensitivity
from tests.cli import warm
from tests.cli.typed import done, environment, started

SLOW = "analyze model.pt2 --calib calibration.pt --candidates 2..8,16 --method measure"


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def test_help_is_quick_and_does_without_torch() -> None:
    code = "import sys; from mpq.cli.main import app; app(['--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    ran, seconds = None, []
    for _ in range(3):
        began = time.perf_counter()
        ran = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - began)
    assert ran is not None
    assert ran.returncode == 0, ran.stderr
    assert "analyze" in ran.stdout
    assert min(seconds) < 2  # a loaded machine; alone it takes a fraction of this


@pytest.mark.parametrize("command", ["analyze", "search", "apply", "check", "eval", "show", "demo"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert f"Example: mpq {command}" in done(f"{command} --help").out


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_analysis_that_was_stopped_goes_on_where_it_was(fresh: Path, how: signal.Signals, code: int) -> None:
    journal = fresh / "model.sensitivity.jsonl"
    process = warm.started(SLOW)
    while len(lines_of(journal)) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    if how == signal.SIGINT:
        assert err.splitlines()[-1] == "mpq: interrupted; what was measured is on disk; run the same command to continue"
        assert "Traceback" not in err
    before = [line for line in lines_of(journal) if line.endswith("\n")]
    assert len(before) >= 4
    done(SLOW)
    after = lines_of(journal)
    assert after[1 : len(before)] == before[1:]
    measured = [json.loads(line) for line in after[1:]]
    figures = [(line["layer"], line["scheme"], line["first"]) for line in measured if "errors" in line]
    assert len(figures) == len(set(figures)) > len(before)


def test_output_that_is_no_terminal_is_plain_and_not_folded(folder: Path) -> None:
    process = started("show plan.yaml", COLUMNS="40", TERM="xterm-256color")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())
    assert len([line for line in out.splitlines() if line.startswith("stem.0 ")]) == 1


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_heeded_where_colors_are_forced(folder: Path, no_color: str, colored: bool) -> None:
    process = started("show plan.yaml", FORCE_COLOR="1", NO_COLOR=no_color, TERM="xterm-256color", COLUMNS="80")
    out, _ = process.communicate(timeout=60)
    colors = [part.split("m")[0] for part in out.split("\x1b[")[1:]]
    assert bool(colors) == colored or set(colors) <= {"0", "1"}  # bold is not a color


def test_a_reader_that_stops_early_is_no_error(folder: Path) -> None:
    process = started("show model.sensitivity.jsonl")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


def test_a_traceback_is_shown_only_when_asked_for() -> None:
    quiet, loud = started("check none.yaml"), started("--verbose check none.yaml")
    assert quiet.communicate(timeout=60)[1] == "mpq: none.yaml does not exist: run `mpq search` first, or name a plan or an artifact\n"
    assert loud.communicate(timeout=60)[1].startswith("Traceback")
    assert (quiet.returncode, loud.returncode) == (3, 3)


def test_two_analyses_on_one_file_are_one_analysis_and_one_refusal(fresh: Path) -> None:
    journal = fresh / "model.sensitivity.jsonl"
    first = warm.started(SLOW)
    while len(lines_of(journal)) < 4 and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = warm.started(SLOW)
    _, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=120)[0] != ""
    assert (second.returncode, first.returncode) == (3, 0)
    told = rf"mpq: another analysis is writing model.sensitivity.jsonl \(process {first.pid} on \S+, since [^)]*\): wait until it ends, or "
    assert re.fullmatch(rf"{told}write elsewhere\n", err)
    alone = read_sensitivity(journal)
    assert (alone.repeated, alone.finished) == (0, True)
    assert max(len(errors) for errors in alone.errors.values()) == alone.header.data["samples"]["calibration"]
    assert [path.name for path in fresh.iterdir() if path.name.startswith(".")] == [".mpq-cache"]
    assert all(re.fullmatch("[0-9a-f]{64}", path.name) for path in (fresh / ".mpq-cache").iterdir())


@pytest.mark.parametrize("method", ["measure", "fisher"])
def test_analyses_that_start_at_the_same_moment_count_every_sample_once(fresh: Path, method: str) -> None:
    line = f"analyze model.pt2 --calib calibration.pt --num-samples 24 --method {method}"
    processes = [warm.started(line) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert 0 in (codes := sorted(process.returncode for process in processes))
    assert set(codes) <= {0, 3}, errors
    table = read_sensitivity(fresh / "model.sensitivity.jsonl")
    assert (table.repeated, {len(found) for found in table.errors.values()}) == (0, {18})
