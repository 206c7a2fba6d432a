"""Writes a first file of budgets: each limit is a little above the current value. No torch.

It skips data, and the models that plans and artifacts were made from, since those are not shipped.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

from mpq.check.measure_size import MODEL_ENDINGS, Weighed, weigh
from mpq.errors import MpqError, UsageError
from mpq.files import PREFIX, exists, open_file
from mpq.limits import PICKLE_BYTES
from mpq.records.artifact_files import read_header
from mpq.shown import printable

_ROOM = 1.05
_ERROR_ROOM = 1.25
_HEAD = """\
# Limits that `mpq check` enforces for the models in this repository. Each is slightly above the current value; tighten as you like.
# Editors complete this file with its schema: mpq schema budgets -o budgets.schema.json
mpq_budgets: 1
budgets:
"""


def starting_budgets(root: Path) -> str:
    """The text of a file of budgets for the plans, artifacts and model files below `root`.

    Raises:
        UsageError: if there are none.
    """
    weighed = [file for path in sorted(root.rglob("*")) if _wanted(path.relative_to(root)) and (file := _weighed(path)) is not None]
    origins = {origin for file in weighed for origin in _origins(file)}
    found = [file for file in weighed if Path(file.path).resolve() not in origins and not _is_data(Path(file.path))]
    if not found:
        raise UsageError(f"no plan and no model file below {root.resolve()}: run `mpq search` first, or write the budgets by hand")
    return _HEAD + "".join(_rule(file, Path(file.path).relative_to(root).as_posix()) for file in found)


def _wanted(path: Path) -> bool:
    hidden = any(part.startswith(".") or part in ("node_modules", "site-packages", "__pycache__") for part in path.parts)
    return not hidden and path.suffix in (*MODEL_ENDINGS, ".yaml", ".yml")


def _origins(file: Weighed) -> list[Path]:
    """The model and the data that a plan or an artifact was made from."""
    facts = [file.plan.model.get("path"), file.plan.data.get("source")] if file.plan else []
    if file.kind == "artifact":
        facts = [read_header(Path(file.path)).model.get("path")]
    places = [Path(file.path).parent / str(fact) for fact in facts if fact is not None]
    return [place.resolve() for place in places if exists(place)]


def _is_data(path: Path) -> bool:
    """Whether an archive of torch.save holds no tensor called weight: inputs, not a model."""
    if path.suffix not in (".pt", ".pth", ".bin"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            named = [info for info in archive.infolist() if info.filename.endswith("/data.pkl") and info.file_size <= PICKLE_BYTES]
            tables = [archive.read(info) for info in named[:1]]
    except Exception:  # a damaged file can raise anything here; mpq's own loader reports it
        return False
    return bool(tables) and not any(b"weight" in table for table in tables)


def _weighed(path: Path) -> Weighed | None:
    """The file with its size; None for YAML that is not a plan, and for files that cannot be read."""
    try:
        if not path.is_file() or (path.suffix in (".yaml", ".yml") and not _is_plan(path)):
            return None
        return weigh(path)
    except (MpqError, OSError):
        return None


def _is_plan(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(PREFIX).startswith(b"mpq_plan:")


def _rule(file: Weighed, name: str) -> str:
    lines = [f"  - files: {_quoted(name)}"]
    if file.plan is not None:
        lines.append(f"    max_bits: {math.ceil(file.effective_bits * 100) / 100:g}  # now {file.effective_bits:.4f}")
        if file.held_out is not None:
            metric = printable(str(file.plan.evidence.get("metric")))
            lines.append(f"    max_error: {file.held_out * _ERROR_ROOM:.3g}  # now {file.held_out:.4g}, {metric}")
        lines += ["    # baseline: origin/main", "    # max_growth: 1%", "    # forbid: {'*embed*': [int2, int3]}"]
    else:
        lines.append(f"    max_bytes: {_rounded(file.bytes * _ROOM)}  # now {file.bytes:,}")
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    """A text in YAML, on one line."""
    return f"'{name}'" if name.isprintable() and not {"'", "\\"} & set(name) else json.dumps(name)


def _rounded(count: float) -> str:
    """At least `count` bytes, in three digits: "12.6MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            digits = 10 ** (2 - math.floor(math.log10(count / factor)))
            return f"{math.ceil(count / factor * digits) / digits:g}{unit}"
    return f"{math.ceil(count)}B"
