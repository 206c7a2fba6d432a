"""Facts from the card of the original model that also apply to the quantized one: license, language, task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mpq.errors import FormatError, MpqError
from mpq.reading.documents import read_text, yaml_document

_KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def original_facts(folder: Path | None) -> dict[str, Any]:
    """License, language and task from the metadata of a folder's README.md; empty if it has no readable metadata."""
    path = None if folder is None else folder / "README.md"
    if path is None or not path.is_file():
        return {}
    try:
        head = _FRONT.match(read_text(path, error=FormatError, absent=""))
        said = {} if head is None else yaml_document(head[1], name=str(path), error=FormatError, remedy="").value
    except MpqError:
        return {}
    return {key: said[key] for key in _KEPT if isinstance(said, dict) and _is_plain(said.get(key))}


def _is_plain(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value))
