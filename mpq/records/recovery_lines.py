"""The journal of a training run, `*.recover.jsonl`: one line per evaluation. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from mpq.errors import FormatError
from mpq.reading.documents import json_document, read_text
from mpq.reading.fields import Figure, Number, Size, Text
from mpq.reading.validate import validated

_REMEDY = "run `mpq recover` again, or remove the file"


class Evaluated(Struct, frozen=True):
    """One evaluation of a run."""

    step: Annotated[Size, Meta(description="steps done")]
    of: Annotated[Size, Meta(description="steps planned")]
    loss: Annotated[Figure | None, Meta(description="mean error of the steps since the last evaluation")]
    aside: Annotated[Figure, Meta(description="mean error on the samples kept aside")]
    rate: Number
    code_rate: Number
    event: Text = ""


def beside_artifact(artifact: Path, ending: str) -> Path:
    """What a training run leaves beside its artifact: the same name with this ending."""
    return artifact.with_name(artifact.name.removesuffix(".safetensors").removesuffix(".mpq") + ending)


def read_recovery_lines(path: Path) -> tuple[Evaluated, ...]:
    """All evaluations of a journal.

    Raises:
        FormatError: if the file is missing, or is not such a journal.
    """
    lines = read_text(path, error=FormatError, absent=_REMEDY).splitlines()
    documents = (
        json_document(line.encode(), name=f"{path}, line {number}", error=FormatError, remedy=_REMEDY)
        for number, line in enumerate(lines, start=1)
    )
    return tuple(validated(document, Evaluated) for document in documents)


def recovery_lines_of(folder: Path, recovery: Any) -> tuple[Evaluated, ...]:
    """The evaluations behind a plan's `evidence.recovery`; none if the journal is not beside it.

    Args:
        folder: of the plan.
        recovery: what the plan notes there, if anything.
    """
    name = recovery.get("artifact") if isinstance(recovery, Mapping) else None
    if not isinstance(name, str) or "/" in name or "\\" in name:
        return ()
    path = beside_artifact(folder / name, ".recover.jsonl")
    return read_recovery_lines(path) if path.is_file() else ()
