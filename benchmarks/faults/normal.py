"""The files a command leaves, as bytes that two runs can be compared by. What is normalised is listed here, and nowhere else.

A sensitivity file ends with what the analysis cost: seconds and peak memory, which differ from run to run. They are taken out of its
`finish` line, with a checksum over that line if there is one. So is the line of a plan that says how many seconds its training took. A
study journal holds process numbers and times, so that its bytes are not compared; that it opens again is seen by the command that reads
it. Everything else is compared as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NORMALISED = {
    "*.sensitivity.jsonl": "cost (seconds and peak memory) of the line `finish`, and that line's checksum",
    "*.study.journal": "not compared: process numbers and times",
    "*.db": "not compared: process numbers and times",
    "*plan.yaml": "the line `seconds` of `evidence.recovery`",
    ".mpq-cache/*": "not compared: the last bits of a sum depend on the number of threads; what is made of them does not",
}
_SECONDS = re.compile(rb"^    seconds: .*\n", re.MULTILINE)
PASSING = re.compile(r".*\.lock|.*\.mpq-cache/[0-9a-f]{64}")  # a lock that can be taken may stay, and whole entries of the cache


def files_in(folder: Path) -> dict[str, bytes]:
    """Comparable contents by relative name, of all files below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = comparable(path)
    return found


def comparable(path: Path) -> bytes:
    """The bytes of a file without what is normalised."""
    if path.name.endswith((".study.journal", ".db")) or path.parent.name == ".mpq-cache":
        return b""
    content = path.read_bytes()
    if path.name.endswith("plan.yaml"):
        return _SECONDS.sub(b"", content)
    if not path.name.endswith(".sensitivity.jsonl"):
        return content
    return b"".join(_without_cost(line) for line in content.splitlines(keepends=True))


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[tuple[str, str]]:
    """What is wrong with each file, by kind and name: "left behind", "missing" or "other bytes"."""
    wrong = [("left a file behind", name) for name in sorted(set(found) - set(expected)) if not PASSING.fullmatch(name)]
    wrong += [("missing file", name) for name in sorted(set(expected) - set(found)) if not PASSING.fullmatch(name)]
    wrong += [("other bytes", name) for name in sorted(set(expected) & set(found)) if expected[name] != found[name]]
    return wrong


def _without_cost(line: bytes) -> bytes:
    if b'"finish"' not in line:
        return line
    try:
        record: dict[str, Any] = json.loads(line)
        finish = dict(record["finish"])
    except (ValueError, KeyError, TypeError):
        return line
    finish.pop("cost", None)
    return json.dumps({"finish": finish}, sort_keys=True).encode() + b"\n"
