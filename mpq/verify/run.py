"""Verify: loads an export in the program that will run it, in a separate process, and compares it with its fingerprint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mpq.errors import MpqError, UsageError
from mpq.export.registry import PROGRAMS as OF_TARGET
from mpq.files import exists
from mpq.records.artifact import is_artifact
from mpq.records.artifact_files import is_index
from mpq.records.fingerprint import read_fingerprint
from mpq.verify.findings import Finding, Verification, verification_in
from mpq.verify.programs.registry import PROGRAMS

ARTIFACTS = "torch"
"""The program that loads artifacts, through `mpq.load`."""


class VerifyError(MpqError):
    """A verification that could not be carried out."""


def verify(file: Path | str, program: str | None = None, *, fingerprint: Path | None = None, trust: bool = False) -> Verification:
    """Compare an export, as a program loads it, with its fingerprint from `mpq export`.

    Args:
        file: the export, a file or a folder; or an artifact.
        program: the program that loads it; None for that of its target.
        fingerprint: path of the fingerprint, if it is not next to the export.
        trust: allow the file to run its own code while it is loaded.

    Raises:
        UsageError: if the program does not load such exports, or is not installed.
        FormatError: if there is no fingerprint, or it is damaged.
        TrustError: if loading would run code from the file and `trust` is not set.
    """
    path = Path(file)
    if not exists(path):
        raise UsageError(f"{path} does not exist: name a file or folder that `mpq export` wrote")
    if is_index(path) or is_artifact(path):
        if program not in (None, ARTIFACTS):
            raise UsageError(f"{path} is an artifact, which {program} does not load: use --with {ARTIFACTS}, or export it first")
        return _in_a_process(path, ARTIFACTS, None, trust=trust)
    target = read_fingerprint(path, fingerprint).target
    name = program or OF_TARGET.get(target, "")
    if target not in PROGRAMS.kind(name).targets:
        raise UsageError(f"{path} is a {target} export, which {name} does not load: use --with {OF_TARGET.get(target, '')}")
    return _in_a_process(path, name, fingerprint, trust=trust)


def _in_a_process(path: Path, name: str, fingerprint: Path | None, *, trust: bool) -> Verification:
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        facts = {"file": str(path), "program": name, "fingerprint": None if fingerprint is None else str(fingerprint), "trust": trust}
        job.write_text(json.dumps(facts), encoding="utf-8")
        found_by = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        line = [
            sys.executable,
            "-P",
            "-m",
            "mpq.verify.worker",
            str(job),
        ]  # -P: the current folder may have files with the names of modules
        environment = {**os.environ, "PYTHONPATH": found_by, "HF_HUB_OFFLINE": "1"}
        ran = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False, env=environment)
        result = job.with_suffix(".result")
        if not result.exists():
            return Verification(str(path), name, (Finding("load", path.name, _ended(ran)),))
        return _read(json.loads(result.read_text(encoding="utf-8")))


def _ended(ran: subprocess.CompletedProcess[str]) -> str:
    """Why a process gave no result."""
    said = (ran.stderr.strip().splitlines() or ["without a message"])[-1]
    how = f"was ended by signal {-ran.returncode}" if ran.returncode < 0 else f"ended with code {ran.returncode}"
    return f"the process that loaded it {how} ({said})"


def _read(record: dict[str, object]) -> Verification:
    if "error" in record:
        error = VerifyError(str(record["error"]))
        error.exit_code = int(str(record["exit_code"]))
        raise error
    return verification_in(record)
