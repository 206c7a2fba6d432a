"""What `mpq eval --json` printed, kept in a file `NAME.evaluation.json`: read by the report. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from mpq.errors import FormatError, MpqError
from mpq.reading.documents import read_json
from mpq.reading.fields import Name, Number, Size, Text
from mpq.reading.validate import validated
from mpq.records.evaluation import Evaluation, Figure

ENDING = ".evaluation.json"
T = TypeVar("T")
_REMEDY = "write it again with `mpq eval ARTIFACT --data FILE --json > NAME.evaluation.json`"


class FigureFacts(Struct):
    """A figure."""

    name: Name
    quantized: Number | None = None
    reference: Number | None = None
    stderr: Number | None = None


class EvaluationFile(Struct):
    """An evaluation of an artifact."""

    assignment: Annotated[Text, Meta(description="digest of the artifact's schemes")]
    samples: Size
    source: Text
    figures: list[FigureFacts]
    artifact: Text = ""
    caution: Text | None = None
    notes: list[Text] = []


def read_evaluation(path: Path) -> tuple[str, Evaluation]:
    """The digest of the schemes that were evaluated, and the evaluation.

    Raises:
        FormatError: if the file is missing, or is none that `mpq eval --json` printed.
    """
    document = read_json(path, error=FormatError, absent=_REMEDY, remedy=_REMEDY)
    file = validated(document, EvaluationFile)
    figures = tuple(Figure(each.name, _number(each.quantized), each.reference, _number(each.stderr)) for each in file.figures)
    return file.assignment, Evaluation(figures, file.samples, file.source, file.caution, tuple(file.notes))


def evaluation_beside(folder: Path, assignment: str) -> Evaluation | None:
    """The evaluation of these schemes among `*.evaluation.json` in a folder, the newest; None if there is none."""
    return newest_beside(folder, ENDING, assignment, read_evaluation)


def newest_beside(folder: Path, ending: str, assignment: str, read: Callable[[Path], tuple[str, T]]) -> T | None:
    """What `read` gives for these schemes among the files with this ending in a folder, the newest; None if there is none."""
    for path in sorted(folder.glob(f"*{ending}"), key=lambda each: each.stat().st_mtime, reverse=True):
        try:
            own, found = read(path)
        except MpqError:  # of something else
            continue
        if own == assignment:
            return found
    return None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
