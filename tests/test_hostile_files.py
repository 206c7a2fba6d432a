"""Hostile files, one short run per reader; `python -m tests.reader_fuzz` does the same at length."""

import ast
from pathlib import Path

import pytest

import mpq
from tests.reader_fuzz import faults, prepared

ROOT = Path(mpq.__file__).parent
NAMES = (
    "plan",
    "sensitivity",
    "artifact",
    "index",
    "config",
    "budgets",
    "costs",
    "assignment-csv",
    "assignment-layer-config",
    "assignment-auto-round",
    "assignment-gptqmodel",
    "assignment-modelopt-state",
    "assignment-modelopt",
)
ELSEWHERE = {  # what reads model files and data, and what reads what mpq itself has just written
    "mpq/models",
    "mpq/records/latency.py",  # the name of the processor
    "mpq/export/timing.py",  # the profile that a runtime has just written
    "mpq/runtime/load_cost.py",
    "mpq/cli/load_cost.py",
    "mpq/schemas/__init__.py",
    "mpq/demo/__init__.py",
    "mpq/analyze/memory.py",
    "mpq/analyze/resume.py",
    "mpq/analyze/together.py",
    "mpq/files.py",
    "mpq/writing/checksums.py",
    "mpq/writing/locks.py",
    "mpq/search/workers.py",
    "mpq/export/weights/gguf/vocabulary.py",
    "mpq/export/weights/compressed_tensors.py",
    "mpq/export/weights/huggingface/target.py",
    "mpq/cli/compress.py",
    "mpq/recovery/training/checkpoints.py",
    "mpq/verify/run.py",
    "mpq/verify/worker.py",
}
DOORS = {"mpq/reading/documents.py", "mpq/reading/yaml_events.py", "mpq/records/sensitivity_file.py"}


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


def test_every_reader_is_tried(sound: Path) -> None:
    assert tuple(prepared(sound)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_file_is_read_and_damaged_ones_are_refused_in_one_line(sound: Path, name: str) -> None:
    reader = prepared(sound)[name]
    content = (sound / reader.file).read_bytes()
    assert faults(reader, content) == []
    for made in reader.mutate(content, 20, 12):
        assert faults(reader, made) == []


def test_documents_are_read_in_one_place() -> None:
    """`yaml`, `json` and whole files are read through `reading/documents.py`, which knows the limits."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT.parent).as_posix()
        if name in DOORS or any(name == each or name.startswith(f"{each}/") for each in ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in _READING:
                found.append(f"{name}:{node.lineno}: {node.attr}")
    assert found == [], "read it with mpq.reading.documents"


_READING = {"safe_load", "safe_load_all", "full_load", "loads", "read_text", "read_bytes", "read_csv", "DictReader", "Decoder"}
