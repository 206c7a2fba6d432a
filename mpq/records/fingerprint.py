"""What an export should contain and compute, in a file next to it: NAME.fingerprint.json. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, to_builtins

from mpq.errors import FormatError
from mpq.files import check_version, write_text
from mpq.reading.documents import read_json
from mpq.reading.fields import Name, SchemeText, Size, Text
from mpq.reading.validate import validated

VERSION = 1
_ENDING = ".fingerprint.json"
_INPUTS = 1 << 28  # values of all fixed inputs
_REMEDY = "run `mpq export` again"

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Shape = Annotated[list[Size], Meta(max_length=64)]


class InputFacts(Struct, omit_defaults=True):
    """A fixed input, see `data/fixed_inputs.py`."""

    shape: Shape
    dtype: Annotated[str, Meta(pattern="^(float|bfloat|int|uint|bool)[0-9]*$")]
    below: Size | None = None
    value: float | None = None


class OutputFacts(Struct, omit_defaults=True):
    """An output of the artifact on the fixed inputs.

    `values` are those at evenly spaced places, None where one is not finite or stands for "impossible"; `largest` is the largest magnitude.
    """

    name: Name
    shape: Shape
    largest: float
    values: list[float | None]


class LayerFingerprint(Struct, omit_defaults=True):
    """A layer as the file holds it.

    Args:
        place: its name in the file.
        scheme: of its weight there; a floating-point one where the file holds values.
        matrix: rows and columns.
        weights: checksum of the dequantized weights, float32 [rows, columns].
        codes: checksum of the codes, uint8 [rows, columns].
        scales: checksum of the scales, float32 [rows, groups].
        row_scales: that of the scales with those of each row sorted.
        all_scales: that of all scales sorted.
        zero_points: checksum, uint8 [rows, groups].
        uses: the operators that use the weight, where the file says.
        output: root mean square and largest magnitude of what the layer gives on the fixed inputs, by the artifact.
    """

    place: Name
    scheme: SchemeText
    matrix: Annotated[list[Size], Meta(min_length=2, max_length=2)]
    weights: Digest | None = None
    codes: Digest | None = None
    scales: Digest | None = None
    row_scales: Digest | None = None
    all_scales: Digest | None = None
    zero_points: Digest | None = None
    uses: list[Text] = []
    output: Annotated[list[float], Meta(min_length=2, max_length=2)] | None = None


class Fingerprint(Struct):
    """What an export should hold and compute.

    Args:
        mpq_fingerprint: version of this file.
        target: that it was exported to.
        tolerance: the largest difference of an output that the program's arithmetic explains, as a share of the output's largest value.
        main: whether the program gives the main output only.
        inputs: fixed inputs, in the order of the call.
        names: of the inputs that are given by name, the last ones.
        outputs: of the artifact on them.
        layers: by name, in model order.
        tensors: checksum of each unquantized tensor that the file holds under its name.
        ties: names of tied tensors, and what they are tied to.
    """

    mpq_fingerprint: int
    target: Text
    tolerance: float
    inputs: list[InputFacts]
    outputs: list[OutputFacts]
    layers: dict[Name, LayerFingerprint]
    tensors: dict[Name, Digest] = {}
    names: list[Name] = []
    ties: dict[Name, Name] = {}


def fingerprint_path(export: Path) -> Path:
    """The path of the fingerprint of the export at `export`: next to a file, or in a folder."""
    return export / f"mpq{_ENDING}" if export.is_dir() else export.with_name(export.name + _ENDING)


def write_fingerprint(export: Path, fingerprint: Fingerprint) -> Path:
    """Write the fingerprint of an export; the file."""
    path = fingerprint_path(export)
    write_text(path, json.dumps(to_builtins(fingerprint), separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_fingerprint(export: Path, path: Path | None = None) -> Fingerprint:
    """The fingerprint of an export, in `path` if it is not next to it.

    Raises:
        FormatError: if there is none, or it is damaged or from a newer version.
    """
    path = path or fingerprint_path(export)
    absent = "it shows what an export should hold; `mpq export` writes it unless you pass --no-fingerprint"
    document = read_json(path, error=FormatError, absent=absent, remedy=_REMEDY)
    version = document.value.get("mpq_fingerprint") if isinstance(document.value, dict) else None
    check_version(version, supported=VERSION, path=path, kind="a fingerprint")
    found = validated(document, Fingerprint)
    if sum(math.prod(each.shape) for each in found.inputs) > _INPUTS:
        raise document.refuse(f"its inputs have more than {_INPUTS:,} values; {_REMEDY}", "inputs")
    return found
