"""Records the result of training in a plan file, without changing its other lines and comments. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import FormatError
from mpq.files import write_text
from mpq.reading.documents import read_text, yaml_document
from mpq.records.plan import read_plan


def note_recovery(path: Path, facts: Mapping[str, Any]) -> None:
    """Write `facts` under `evidence.recovery` of a plan file, replacing earlier ones.

    Raises:
        FormatError: if the file is not a plan, or its evidence is written in a way that cannot be edited line by line.
        OutputError: if it cannot be written.
    """
    before = read_plan(path)
    remedy = "run `mpq search` again"
    text = _with(read_text(path, error=FormatError, absent=remedy), facts)
    after = yaml_document(text, name=str(path), error=FormatError, remedy=remedy).value
    if (after.get("evidence") or {}) != {**before.evidence, "recovery": dict(facts)}:
        raise FormatError(f"{path}: its evidence is not in the form that `mpq search` writes; run `mpq search` again")
    write_text(path, text)


def _with(text: str, facts: Mapping[str, Any]) -> str:
    lines = text.splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if line.rstrip() == "evidence:"), None)
    block = yaml.safe_dump({"recovery": dict(facts)}, sort_keys=False, allow_unicode=True)
    added = [f"  {line}" for line in block.splitlines(keepends=True)]
    if start is None:
        place = next((number for number, line in enumerate(lines) if line.rstrip() == "layers:"), len(lines))
        return "".join([*lines[:place], "evidence:\n", *added, *lines[place:]])
    end = next((number for number in range(start + 1, len(lines)) if not lines[number].startswith((" ", "\n", "#"))), len(lines))
    kept: list[str] = []
    inside = False
    for line in lines[start + 1 : end]:
        if line.startswith("  ") and not line.startswith("   ") and not line.startswith("  -"):
            inside = line.startswith("  recovery:")
        if not inside:
            kept.append(line)
    return "".join([*lines[: start + 1], *kept, *added, *lines[end:]])
