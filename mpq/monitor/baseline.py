"""The sketches of calibration data that a running model is compared with, in a file beside its artifact: NAME.monitor.json."""

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
    """What calibration data was like.

    Args:
        tensors: sketch by the name of a watched tensor.
        noise: the stability index between two halves of the data, by name: what is no drift.
    """

    tensors: Mapping[str, Sketch]
    noise: Mapping[str, float]


def baseline_of(module: nn.Module, batches: Iterable[Batch], layers: Iterable[str] = ()) -> Baseline:
    """The baseline of a model on calibration data.

    Args:
        module: the model, as it will run.
        batches: at least two.
        layers: names of the modules whose inputs are watched too.

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
    """Where the baseline of an artifact is."""
    return artifact if artifact.name.endswith(_ENDING) else artifact.with_name(artifact.name + _ENDING)


def write_baseline(baseline: Baseline, artifact: Path) -> Path:
    """Write a baseline beside an artifact; the file."""
    tensors = {name: sketch.to_dict() for name, sketch in baseline.tensors.items()}
    record = {"mpq_monitor": VERSION, "tensors": tensors, "noise": dict(baseline.noise)}
    path = baseline_path(artifact)
    write_text(path, json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_baseline(artifact: Path) -> Baseline:
    """The baseline of an artifact, or in the file named.

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
    """Refuse sketches under the key `tensors` that have more bins than there are.

    Raises:
        MpqError: of the document's type, naming the first.
    """
    for name, sketch in tensors.items():
        if sketch.first + len(sketch.counts) > BINS:
            raise document.refuse(f"its sketch has more than {BINS} bins; {remedy}", "tensors", name)
