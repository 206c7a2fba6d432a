"""The malicious files that the tests build (`tests/hostile`), as cases for every command that reads such files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults import hostile_files as files
from benchmarks.faults.hostile_case import Case
from tests import hostile

_FILE = Path("evil")
_MODEL = ("model:evil", "analyze evil --calib calibration.pt -o out.sensitivity.jsonl", "show evil", "check evil --budget 9bits")
_SAVED = (*_MODEL, "analyze evil --calib calibration.pt --model benchmarks.faults.world:mlp -o out.sensitivity.jsonl")
_DATA = ("analyze model.pt2 --calib evil -o out.sensitivity.jsonl", "eval model.mpq.safetensors --data evil")
_ARTIFACT = (
    "load:evil.mpq.safetensors",
    "eval evil.mpq.safetensors --data calibration.pt",
    "export evil.mpq.safetensors --to pt2 -o out.pt2",
    "show evil.mpq.safetensors",
)
_PLANNED = ("apply evil.yaml -o out.mpq.safetensors", "search evil.sensitivity.jsonl --budget 5bits --trials 1 -o out.yaml")


def built_cases() -> Iterator[Case]:
    """Every builder of the tests, as a model, as data, as the program of an artifact, and as the model of a plan and of an analysis."""
    for name, build in hostile.PROGRAMS.items():
        yield Case(f"built program {name}", partial(_build, build), _MODEL)
        yield Case(f"built program as artifact, {name}", partial(_artifact, build), _ARTIFACT)
        yield Case(f"built program in a plan, {name}", partial(_planned, build), _PLANNED)
    for kind, builders, lines in (
        ("script", hostile.SCRIPTS, _MODEL),
        ("pickle", hostile.PICKLES, (*_SAVED, *_DATA)),
        ("directory", hostile.DIRECTORIES, _MODEL),
        ("bomb", hostile.BOMBS, (*_SAVED, *_DATA)),
    ):
        for name, build in builders.items():
            yield Case(f"built {kind} {name}", partial(_build, build), lines)
    for number, build in enumerate(hostile.LIVE):
        yield Case(f"trusted {number}", partial(_build, build), ("trusted:evil",), trusted=True)


def _build(build: hostile.Builder, marker: Path) -> None:
    """What the builder makes, under one name."""
    folder = Path("built")
    folder.mkdir()
    build(folder, marker).rename(_FILE)
    shutil.rmtree(folder)


def _artifact(build: hostile.Builder, marker: Path) -> None:
    _build(build, marker)
    content = Path("model.mpq.safetensors").read_bytes()
    Path("evil.mpq.safetensors").write_bytes(files.artifact_with_program(content, lambda _: _FILE.read_bytes()))


def _planned(build: hostile.Builder, marker: Path) -> None:
    """A plan and an analysis of this model, with its right hash."""
    from mpq.files import sha256_of

    _build(build, marker)
    old, new = sha256_of([Path("model.pt2")]), sha256_of([_FILE])
    plan = Path("plan.yaml").read_text().replace("model.pt2", "evil").replace(old, new)
    Path("evil.yaml").write_text(plan)
    first, *lines = Path("model.sensitivity.jsonl").read_text().splitlines()
    Path("evil.sensitivity.jsonl").write_text("\n".join([_unsealed(first).replace("model.pt2", "evil").replace(old, new), *lines]) + "\n")


def _unsealed(line: str) -> str:
    """A line of a journal without its checksum, which readers accept as one of an older version."""
    import json

    from mpq.writing.checksums import unsealed

    return json.dumps(unsealed(line.encode()))
