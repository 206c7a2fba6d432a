"""The sketches of calibration data that a running model is compared with, in a file next to its artifact: NAME.monitor.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta, Struct, to_builtins
from torch import nn

from mpq.data.batch import Batch
from mpq.errors import FormatError, UsageError
from mpq.files import check_version, write_text
from mpq.monitor.observe import Observer
from mpq.monitor.sketch import BINS, Sketch, sketch_in, stability_index
from mpq.reading.documents import Document, read_json
from mpq.reading.fields import Name, Size
from mpq.reading.validate import validated

VERSION = 1
_ENDING = ".monitor.json"
_REMEDY = "write it again, as docs/cookbook.md shows"


class SketchFacts(Struct, omit_defaults=True):
    """A sketch, see `sketch.py`."""

    first: Annotated[int, Meta(ge=0, lt=BINS)]
    counts: Annotated[list[Size], Meta(max_length=BINS)]
    not_finite: Size
    calls: Size
    minimum: float | None = None
    maximum: float | None = None


class BaselineFacts(Struct):
    """The file."""

    mpq_monitor: int
    tensors: dict[Name, SketchFacts]
    noise: dict[Name, float]


@dataclass(frozen=True)
class Baseline:
    """Sketches of the calibration data.

    Args:
        tensors: sketch by the name of a watched tensor.
        noise: the stability index between two halves of the data, by name: the level without drift.
    """

    tensors: Mapping[str, Sketch]
    noise: Mapping[str, float]


def baseline_of(module: nn.Module, batches: Iterable[Batch], layers: Iterable[str] = ()) -> Baseline:
    """The baseline of a model on calibration data.

    Args:
        module: the model in the form in which it will run.
        batches: at least two.
        layers: names of modules whose inputs are also watched.

    Raises:
        UsageError: if there are fewer than two batches.
    """
    names = list(layers)
    halves = (Observer(module, names), Observer(module, names))
    number = 0
    for batch in batches:
        observer = halves[number % 2]
        with torch.no_grad(), observer.hooked():
            observer.see((batch.args, batch.kwargs), module(*batch.args, **batch.kwargs))
        number += 1
    if number < 2:
        raise UsageError(f"{number} batches are too few for a baseline: give two or more, so that one half can be compared with the other")
    first, second = (observer.sketches for observer in halves)
    return Baseline(
        {name: first[name].merged(second[name]) for name in first if name in second},
        {name: stability_index(first[name], second[name]) for name in first if name in second},
    )


def baseline_path(artifact: Path) -> Path:
    """The path of the baseline of an artifact."""
    return artifact if artifact.name.endswith(_ENDING) else artifact.with_name(artifact.name + _ENDING)


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
    document = read_json(path, error=FormatError, absent="mpq.monitor.baseline writes it", remedy=_REMEDY)
    version = document.value.get("mpq_monitor") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="a baseline")
    facts = validated(document, BaselineFacts)
    check_sketches(document, facts.tensors, remedy=_REMEDY)
    return Baseline({name: sketch_in(to_builtins(sketch)) for name, sketch in facts.tensors.items()}, facts.noise)


def check_sketches(document: Document, tensors: Mapping[str, SketchFacts], *, remedy: str) -> None:
    """Refuse sketches under the key `tensors` that have too many bins.

    Raises:
        MpqError: of the document's error type, naming the first one.
    """
    for name, sketch in tensors.items():
        if sketch.first + len(sketch.counts) > BINS:
            raise document.refuse(f"its sketch has more than {BINS} bins; {remedy}", "tensors", name)
