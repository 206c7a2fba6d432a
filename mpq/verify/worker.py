"""One verification in a separate process, which runs this file: if a program crashes, only this process ends."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from mpq.errors import MpqError, TrustError, UsageError
from mpq.export.stored.read import held_in
from mpq.export.weights.quiet import quiet
from mpq.records.artifact import is_artifact
from mpq.records.artifact_files import is_index
from mpq.records.fingerprint import Fingerprint, read_fingerprint
from mpq.shown import first_line
from mpq.verify.artifact import judge_artifact
from mpq.verify.findings import Finding, Verification
from mpq.verify.judge import judge
from mpq.verify.places import places_of
from mpq.verify.programs.base import Program
from mpq.verify.programs.registry import PROGRAMS
from mpq.verify.weights import weight_findings


def verified(file: Path, name: str, fingerprint: Path | None, *, trust: bool) -> Verification:
    """Load `file` in the program `name`, in this process, and compare it with its fingerprint.

    Raises:
        MpqError: if the fingerprint cannot be read, the program is not installed, or loading would run code from the file.
    """
    if is_index(file) or is_artifact(file):
        with quiet():
            return judge_artifact(file)
    facts, program = read_fingerprint(file, fingerprint), PROGRAMS.kind(name)()
    label = f"{name} {program.check_installed()}".strip()
    with quiet():
        return _loaded(file, label, program, facts, trust=trust)


def _loaded(file: Path, label: str, program: Program, facts: Fingerprint, *, trust: bool) -> Verification:
    try:
        loaded = program.load(file, facts, trust=trust)
    except (UsageError, TrustError):
        raise
    except Exception as error:  # the program has its own errors
        load = Finding("load", file.name, f"the program cannot load it ({first_line(error)})")
        return Verification(str(file), label, (*_why(file, facts), load))
    return judge(str(file), label, facts, loaded)


def _why(file: Path, facts: Fingerprint) -> list[Finding]:
    """What is wrong with the weights of a file that the program cannot load, if it can be read without the program."""
    try:
        held = held_in(facts.target, file, places_of(facts))
    except Exception:  # then only the program's own reason is known
        return []
    return [] if held is None else list(weight_findings(facts, held))


def _main(job: str) -> None:
    """Read a job, and write its result next to it."""
    facts = json.loads(Path(job).read_text(encoding="utf-8"))
    fingerprint = None if facts["fingerprint"] is None else Path(facts["fingerprint"])
    warnings.simplefilter("ignore")
    try:
        result = verified(Path(facts["file"]), facts["program"], fingerprint, trust=facts["trust"]).to_dict()
    except MpqError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    Path(job).with_suffix(".result").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1])
