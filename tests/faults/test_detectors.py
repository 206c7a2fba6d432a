"""Each part of `benchmarks.faults` can fail: what is broken on purpose is found, and by its right name."""

import json
import subprocess
import sys

import pytest

from tests.cli.typed import ROOT, environment

EXPECTED = {
    "reader raises": ["ValueError"],
    "reader hangs": ["took more than 0.5 s"],
    "reader crashes": ["killed by signal 11"],
    "reader eats": ["MemoryError"],
    "reader gives_up": ["over the memory limit"],
    "reader colors": ["control characters printed"],
    "reader annotates": ["workflow command printed"],
    "reader chatters": ["message of more than 2000 characters"],
    "reader says_no": ["exit code 1"],
    "reader refuses": [],
    "kills": ["left a file behind", "missing file", "other bytes"],
    "disks": ["exit code 1"],
    "outputs": ["exit code 100"],
    "torn": ["KeyError", "a torn journal is refused", "damage is not noticed"],
    "hostile": ["code ran or a file was written", "does not attack"],
    "workers": ["left a file behind", "missing file"],
    "determinism": ["other bytes"],
    "bombs": ["MemoryError"],
    "numbers": ["not the best choice", "over the budget"],
    "versions": ["ValueError", "other values"],
    "studies": ["counted twice", "measured twice", "trials lost"],
}


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.broken"], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    made: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return made


@pytest.mark.parametrize("part", EXPECTED)
def test_what_is_broken_on_purpose_is_found(found: dict[str, list[str]], part: str) -> None:
    assert found[part] == EXPECTED[part]


def test_every_detector_is_tried(found: dict[str, list[str]]) -> None:
    assert set(found) == set(EXPECTED)
