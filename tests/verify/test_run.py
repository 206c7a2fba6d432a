"""Verifications run in a process of their own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import UsageError
from mpq.records.fingerprint import Fingerprint
from mpq.verify import run
from mpq.verify.findings import Verification
from mpq.verify.run import VerifyError, verify

FACTS = Fingerprint(mpq_fingerprint=1, target="onnx", tolerance=0.1, inputs=[], names=[], outputs=[], layers={}, tensors={}, ties={})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "read_fingerprint", lambda path, given: FACTS)
    (tmp_path / "m.onnx").write_bytes(b"x" * 20)
    return tmp_path / "m.onnx"


def process(monkeypatch: pytest.MonkeyPatch, code: int, err: str = "", result: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A stand-in for the process; the jobs that it got."""
    jobs: list[dict[str, Any]] = []

    def started(line: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        jobs.append(json.loads(Path(line[-1]).read_text()) | {"offline": options["env"]["HF_HUB_OFFLINE"], "module": line[-2]})
        if result is not None:
            Path(line[-1]).with_suffix(".result").write_text(json.dumps(result))
        return subprocess.CompletedProcess(line, code, "", err)

    monkeypatch.setattr(subprocess, "run", started)
    return jobs


def test_the_result_of_the_process_is_the_verification(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = process(monkeypatch, 0, result=Verification(str(file), "onnxruntime 1", ()).to_dict())
    found = verify(file, trust=True)
    assert found.passed
    assert found.program == "onnxruntime 1"
    facts = {"file": str(file), "program": "onnxruntime", "fingerprint": None, "trust": True}
    assert jobs == [facts | {"offline": "1", "module": "mpq.verify.worker"}]


def test_an_error_of_the_process_keeps_its_exit_code(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(monkeypatch, 0, result={"error": "no such thing", "exit_code": 2})
    with pytest.raises(VerifyError, match=r"^no such thing$") as caught:
        verify(file)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("code", "err", "message"),
    [
        (-11, "", "the process that loaded it was ended by signal 11 (without a message)"),
        (3, "a\nlast line\n", "the process that loaded it ended with code 3 (last line)"),
    ],
)
def test_a_process_that_ends_without_a_result_is_a_finding(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: int, err: str, message: str
) -> None:
    process(monkeypatch, code, err)
    (finding,) = verify(file).findings
    assert (finding.kind, finding.name, finding.message) == ("load", "m.onnx", message)


def test_a_missing_file_and_a_program_of_other_exports_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none does not exist: name a file or folder that `mpq export` wrote"):
        verify(tmp_path / "none")
    with pytest.raises(UsageError) as caught:
        verify(file, "openvino")
    assert str(caught.value) == f"{file} is a onnx export, which openvino does not load: use --with onnxruntime"
