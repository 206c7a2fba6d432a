"""One verification, in this process."""

import json
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.fingerprint import fingerprint_path
from mpq.verify.worker import _main, verified
from tests.verify.making import exported


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("export"), "pt2", "out.pt2")[1]


def test_an_export_passes_and_names_the_version_of_its_program(export: Path) -> None:
    found = verified(export, "torch", None, trust=False)
    assert found.passed
    assert found.program.startswith("torch ")


def test_a_file_that_does_not_load_is_a_finding(export: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(export.read_bytes()[:500])
    found = verified(tmp_path / "cut.pt2", "torch", fingerprint_path(export), trust=False)
    assert [(each.kind, each.name) for each in found.findings] == [("load", "cut.pt2")]
    assert found.findings[0].message.startswith("the program cannot load it (")
    assert not found.passed


def test_a_missing_fingerprint_is_an_error(export: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        verified(export, "torch", tmp_path / "none.json", trust=False)


@pytest.mark.filterwarnings("ignore")  # the worker silences warnings for its own process
def test_a_job_leaves_its_result_or_its_error_beside_it(export: Path, tmp_path: Path) -> None:
    for name, fingerprint in (("right", None), ("wrong", str(tmp_path / "none.json"))):
        facts = {"file": str(export), "program": "torch", "fingerprint": fingerprint, "trust": False}
        (tmp_path / f"{name}.json").write_text(json.dumps(facts))
        _main(str(tmp_path / f"{name}.json"))
    right, wrong = (json.loads((tmp_path / f"{name}.result").read_text()) for name in ("right", "wrong"))
    assert right["findings"] == []
    assert set(wrong) == {"error", "exit_code"}
