"""Definitions of the lines of a sensitivity file, and a fast reader for the many measurement lines. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from mpq.errors import FormatError
from mpq.reading.documents import Document, json_document
from mpq.reading.fields import Count, Name, Number, Positive, RestDtype, SchemeText, Size, Text
from mpq.reading.validate import validated
from mpq.records.equalization import ChainFacts
from mpq.records.facts import DataFacts, ModelFacts, NamedLayerFacts, RestFacts
from mpq.records.measured_activations import ActivationLine

VERSION = 1
_REMEDY = "the file is damaged: run `mpq analyze` again"
_MOST = 1e150  # its square is a float, too
Part = Annotated[float, Meta(ge=0, le=1)]
Figure = Annotated[float, Meta(ge=-_MOST, le=_MOST)]


class OutputFacts(Struct, forbid_unknown_fields=True):
    """A compared output."""

    output: Name
    metric: Text
    weight: Positive = 1.0
    probabilities: bool = False
    floor: Positive = 1e-30
    mask: Literal["positions", "scaled", "last", "classes"] | None = "positions"


class SettingsFacts(Struct):
    """The settings of an analysis."""

    metric: Text
    method: Text
    quantizer: Text
    probabilities: bool = False
    outputs: list[OutputFacts] = []


class HeaderLine(Struct):
    """The first line: what was measured, on what, and how."""

    mpq_sensitivity: Literal[1]
    model: ModelFacts
    data: DataFacts | None
    settings: SettingsFacts
    rest: RestFacts
    layers: list[NamedLayerFacts]
    notes: list[Text]
    versions: dict[Name, Text]
    equalization: list[ChainFacts] = []
    rest_as: Annotated[
        dict[RestDtype, RestFacts | Text],
        Meta(description="the constant part with its floating-point tensors stored in another dtype, or why it cannot be"),
    ] = {}


class QualityFacts(Struct):
    """How well a model of the error predicts whole plans."""

    rank: Number | None
    bias: Annotated[float, Meta(ge=-700, le=700)] | None
    spread: Number | None


class CheckFacts(Struct):
    """The self-check of an analysis."""

    plans: Size = 0
    additive: QualityFacts | UnsetType = UNSET
    interactions: QualityFacts | UnsetType = UNSET


class TableFacts(Struct):
    """A lookup table of which calibration reaches only some rows."""

    rows: Count
    reached: Size
    share: Part
    adds: dict[SchemeText, Positive] = {}


class CoverageFacts(Struct):
    """How much of the model and the data an analysis covered; see `records/coverage.py`."""

    layers: Size
    searched_bytes: Size
    left_out: Size
    left_out_bytes: Size
    outputs: Size
    outputs_returned: Size
    positions: Size
    positions_given: Size
    calibration: Size
    held_out: Size


class TogetherFacts(Struct):
    """All groups of tensors at once: their error, and the sum of their single errors."""

    groups: Size
    together: Number
    sum: Number


class ActivationFacts(Struct):
    """What was measured of tensors between layers."""

    schemes: list[Text] = []
    check: dict[Name, TogetherFacts] = {}


class FinishFacts(Struct):
    """The end of an analysis."""

    cost: dict[Name, Number] = {}
    check: CheckFacts | UnsetType = UNSET
    unseen_rows: dict[Name, TableFacts] = {}
    coverage: CoverageFacts | UnsetType = UNSET
    fallbacks: dict[Name, Text] = {}
    notes: list[Text] = []
    parts: list[Count] = []
    activations: ActivationFacts | UnsetType = UNSET


class FinishLine(Struct):
    """The last line."""

    finish: FinishFacts


class BlendLine(Struct):
    """The line before it, of method "fisher"."""

    blend: Annotated[float, Meta(ge=0, le=1)]
    draws: Count


class ScaleLine(Struct):
    """After it, of method "fisher": the errors of a pair are multiplied by `scale`, because it was measured on some samples."""

    layer: Name
    scheme: SchemeText
    scale: Annotated[float, Meta(ge=0, le=_MOST)]


class FiguresLine(Struct):
    """A measurement of a layer under a scheme: one value per sample, starting with sample `first`; null where an output was not finite."""

    layer: Name
    scheme: SchemeText
    errors: list[Figure | None]
    first: Size | None = None
    products: list[Figure] | None = None


_FIGURES = msgspec.json.Decoder(FiguresLine)


def header_line(line: bytes, name: str) -> Document:
    """The first line, not yet validated: its version comes first.

    Raises:
        FormatError: if it is not a JSON object.
    """
    return _object(line, name)


def record_line(line: bytes, name: str) -> Mapping[str, Any]:
    """Any other line, as `Sensitivity.read` takes it.

    Raises:
        FormatError: if it is not a line that an analysis writes.
    """
    try:
        found = _FIGURES.decode(line)
    except (
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
    ):  # another kind of line, or a damaged one: use the slow reader for its message
        document = _object(line, name)
        for key, kind in (("finish", FinishLine), ("blend", BlendLine), ("scale", ScaleLine), ("activation", ActivationLine)):
            if key in document.value:
                validated(document, kind)
                return dict(document.value)
        found = validated(document, FiguresLine)
    return {key: value for key, value in structs.asdict(found).items() if value is not None}


def _object(line: bytes, name: str) -> Document:
    document = json_document(line, name=name, error=FormatError, remedy=_REMEDY)
    if not isinstance(document.value, dict):
        raise document.refuse(f"not a JSON object; {_REMEDY}")
    return document
