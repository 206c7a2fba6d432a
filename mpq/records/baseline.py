"""The sketches of calibration data that a running model is compared with, in a file next to its artifact: NAME.monitor.json. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from mpq.errors import FormatError, UsageError
from mpq.files import check_version, write_text
from mpq.reading.documents import read_json
from mpq.reading.fields import Name, Positive
from mpq.reading.validate import validated
from mpq.records.sketch import Sketch, SketchFacts, check_sketches, sketch_in

VERSION = 1
INPUT, OUTPUT, ENTROPY, MARGIN = "input", "output", "output entropy", "output margin"
"""Names of the sketches of a model; those of its layers are "LAYER.input"."""
_ENDING = ".monitor.json"
_REMEDY = "write it with `mpq monitor baseline ARTIFACT --data FILE`"


class BaselineFacts(Struct):
    """The file."""

    mpq_monitor: int
    tensors: dict[Name, SketchFacts]
    noise: dict[Name, Positive]


@dataclass(frozen=True)
class Baseline:
    """Sketches of the calibration data.

    Args:
        tensors: sketch by the name of a watched tensor.
        noise: how much samples differ, by name: without drift, the stability index between n and m samples is about noise (1/n + 1/m).
    """

    tensors: Mapping[str, Sketch]
    noise: Mapping[str, float]


def baseline_path(artifact: Path) -> Path:
    """The path of the baseline of an artifact."""
    return artifact if artifact.name.endswith(_ENDING) else artifact.with_name(artifact.name + _ENDING)


def baseline_beside(file: Path) -> Path:
    """The only baseline in the folder of a file.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = sorted(file.resolve().parent.glob(f"*{_ENDING}"))
    if len(found) != 1:
        names = f": {', '.join(path.name for path in found)}" if found else ""
        raise UsageError(f"{len(found)} baselines next to {file}{names}: name one with --against ARTIFACT")
    return found[0]


def write_baseline(baseline: Baseline, artifact: Path) -> Path:
    """Write a baseline next to an artifact; returns the file."""
    tensors = {name: sketch.to_dict() for name, sketch in baseline.tensors.items()}
    record = {"mpq_monitor": VERSION, "tensors": tensors, "noise": dict(baseline.noise)}
    path = baseline_path(artifact)
    write_text(path, json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_baseline(artifact: Path) -> Baseline:
    """The baseline of an artifact, or in the given file.

    Raises:
        FormatError: if there is none, or it is damaged or from a newer version.
    """
    path = baseline_path(artifact)
    document = read_json(path, error=FormatError, absent=_REMEDY, remedy=_REMEDY)
    version = document.value.get("mpq_monitor") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="a baseline")
    facts = validated(document, BaselineFacts)
    check_sketches(document, facts.tensors, remedy=_REMEDY)
    return Baseline({name: sketch_in(sketch) for name, sketch in facts.tensors.items()}, facts.noise)
