"""The sketches of calibration data that a running model is compared with: in its artifact, or next to it in NAME.monitor.json. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from mpq.errors import FormatError, UsageError
from mpq.files import check_version, write_text
from mpq.reading.documents import read_json
from mpq.reading.fields import Name, Positive
from mpq.reading.validate import validated
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import is_index, read_header
from mpq.records.layer import Layer
from mpq.records.sketch import Sketch, SketchFacts, check_sketches, sketch_in
from mpq.records.stored_sketches import MODEL, StoredSketches

VERSION = 1
_ENDING = ".monitor.json"
_REMEDY = "write it with `mpq monitor baseline ARTIFACT --data FILE`, or run `mpq apply --sketches` again"


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
    """The baseline of an artifact: in the file next to it, else in its header. Or that in the given file.

    Raises:
        FormatError: if there is none, or it is damaged or from a newer version.
    """
    path = baseline_path(artifact)
    if not path.exists() and path != artifact and (artifact.is_file() or is_index(artifact)):
        header = read_header(artifact)
        if header.sketches is None:
            raise FormatError(f"{artifact} has no sketches, and {path} does not exist: {_REMEDY}")
        return stored_baseline(header, header.sketches)
    document = read_json(path, error=FormatError, absent=_REMEDY, remedy=_REMEDY)
    version = document.value.get("mpq_monitor") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="a baseline")
    facts = validated(document, BaselineFacts)
    check_sketches(document, facts.tensors, remedy=_REMEDY)
    return Baseline({name: sketch_in(sketch) for name, sketch in facts.tensors.items()}, facts.noise)


def input_name(layer: Layer) -> str:
    """The name of the sketch of the input of a layer: that of the module which holds its weight."""
    return f"{layer.parameters[0].rpartition('.')[0]}.input"


def watched_names(header: ArtifactHeader, stored: StoredSketches) -> list[str]:
    """Names of the modules whose inputs the sketches of an artifact watch."""
    layers = {layer.name: layer for layer in header.layers}
    return [input_name(layers[name]).removesuffix(".input") for name in stored.layers]


def stored_baseline(header: ArtifactHeader, stored: StoredSketches) -> Baseline:
    """The baseline in the header of an artifact."""
    names = [*MODEL, *(f"{name}.input" for name in watched_names(header, stored))]
    seen = {name: row for name, row in zip(names, stored.rows, strict=True) if row[0].samples}
    return Baseline({name: sketch for name, (sketch, _) in seen.items()}, {name: noise for name, (_, noise) in seen.items()})


def stored_sketches(baseline: Baseline, layers: Sequence[Layer]) -> StoredSketches:
    """What the header of an artifact holds of a baseline.

    Args:
        baseline: of the quantized model.
        layers: those whose inputs are watched.
    """
    names = [*MODEL, *(input_name(layer) for layer in layers)]
    rows = tuple((baseline.tensors.get(name, Sketch()), baseline.noise.get(name, 0.0)) for name in names)
    return StoredSketches(tuple(layer.name for layer in layers), rows)
