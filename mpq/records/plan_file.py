"""The definition of a plan file; the texts of schemes and shapes are parsed afterwards. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from mpq.formats.matrix import alike_rows, matrix_of
from mpq.limits import LAYER_WEIGHTS
from mpq.reading.documents import Document
from mpq.reading.fields import Axis, Count, Limit, Name, Number, RestDtype, SchemeText, Scope, Sha256, Size, Text
from mpq.records.activations import GroupFacts
from mpq.records.equalization import ChainFacts
from mpq.records.facts import DataFacts, ModelFacts, RestFacts
from mpq.records.sensitivity_file import OutputFacts
from mpq.shown import shown

VERSION = 4  # of a plan with sketches
ROUNDED = 3  # of one without, with activations or equalized channels
ANALYSED = 2  # of one without either, that names its analysis; version 1 does not
_SHAPE = "^[0-9]{1,16}x[0-9]{1,16}(/[0-9]{1,16})?$"
_ROWS_COLUMNS = "rows x columns, for example 64x128"
Shape = Annotated[str, Meta(max_length=49, extra_json_schema={"pattern": _SHAPE}, extra={"give": _ROWS_COLUMNS})]


class BudgetFacts(Struct, forbid_unknown_fields=True):
    """A limit and what it counts."""

    limit: Limit
    scope: Scope


class SizeFacts(Struct):
    """Computed from the layers, for people to read."""

    effective_bits: Number | None = None
    layer_bytes: Size | None = None
    file_bytes: Size | None = None
    file_effective_bits: Number | None = None
    unsearched_bytes: Size | None = None


class MeasuredFacts(Struct):
    """Errors measured on the whole plan."""

    calibration: Number | None = None
    calibration_stderr: Number | None = None
    held_out: Number | None = None
    held_out_stderr: Number | None = None
    samples: dict[Name, Size] | Size | None = None


class UniformFacts(Struct):
    """The best plan of one scheme."""

    scheme: Text
    effective_bits: Number
    held_out: Number | None = None


class InteractionFacts(Struct):
    """The best plan found under the quadratic model: its predicted error, and a lower bound for any plan."""

    predicted: Number | None = None
    bound: Number | None = None


class CostFacts(Struct):
    """A limit of the search in addition to the size."""

    total: Number
    most: Number


class AskedFacts(Struct):
    """The quality limit that the search was given."""

    name: Text
    most: Number
    value: Number | None = None


class RestCostFacts(Struct):
    """What storing the unquantized tensors in a smaller dtype costs alone."""

    dtype: RestDtype
    held_out: Number | None = None
    held_out_stderr: Number | None = None


class FinalistFacts(Struct):
    """A plan that was measured on the model."""

    name: Text
    effective_bits: Number
    predicted: Number | None
    calibration: Number | None
    calibration_stderr: Number | None
    held_out: Number | None
    held_out_stderr: Number | None
    expected: Annotated[Number | None, Meta(description="by all evidence together")] = None


class RecoveryFacts(Struct):
    """What training won back: the error of the trained artifact on the held-out samples."""

    artifact: Annotated[Text, Meta(description="file name of the trained artifact")] = ""
    before: Annotated[Number | None, Meta(description="held-out error of the artifact that training began with")] = None
    after: Annotated[Number | None, Meta(description="held-out error of the trained artifact")] = None
    share_of_gap: Annotated[Number | None, Meta(description="1 - after / before")] = None
    standard_error: Annotated[Number | None, Meta(description="of `after`")] = None
    seconds: Number | None = None
    samples: Annotated[Count | None, Meta(description="that were trained on")] = None
    reallocated: Annotated[Count | None, Meta(description="layers that got another scheme after a first training")] = None


class RoundedFacts(Struct):
    """What is known about the activations of the plan."""

    predicted: Annotated[Number | None, Meta(description="sum of the single errors of their groups")] = None
    share_of_work: Annotated[Number | None, Meta(description="share of the measured multiplications that read integers")] = None
    weights_alone: Annotated[Number | None, Meta(description="held-out error of the plan without them")] = None
    weights_alone_stderr: Number | None = None


class EvidenceFacts(Struct):
    """What is known about the plan's error; valid as long as the layers are not edited."""

    assignment: Annotated[Text, Meta(description="digest of the layers that the evidence belongs to")] = ""
    metric: Text = ""
    outputs: Annotated[list[OutputFacts], Meta(description="the compared outputs, unless that is the main output only")] = []
    predicted: Number | None = None
    unseen_rows: Annotated[Number | None, Meta(description="what table rows that calibration never reached add to it")] = None
    reach: Annotated[Text, Meta(description="how many rows of tables calibration reached")] = ""
    measured: MeasuredFacts | UnsetType = UNSET
    best_uniform: UniformFacts | UnsetType = UNSET
    optimality_gap: Number | None = None
    with_interactions: InteractionFacts | UnsetType = UNSET
    rest: RestCostFacts | UnsetType = UNSET
    activations: RoundedFacts | UnsetType = UNSET
    costs: Annotated[dict[Name, CostFacts], Meta(description="other limits of the search")] = {}
    asked: AskedFacts | list[AskedFacts] | UnsetType = UNSET
    recovery: RecoveryFacts | UnsetType = UNSET
    decision: Text = ""
    probability: Annotated[
        Number | None,
        Meta(description="that the plan's error is below that of the best uniform plan, or, for a uniform plan, of the best mixed one"),
    ] = None
    finalists: list[FinalistFacts] = []


class AnalysisFacts(Struct):
    """A sensitivity file, by name and by the hash of its first line."""

    sha256: Annotated[Sha256, Meta(description="of its first line")]
    path: Annotated[Text | None, Meta(description="its file name")] = None


class PlanFile(Struct, forbid_unknown_fields=True):
    """Which scheme each layer uses, why, and how big the result is."""

    mpq_plan: Annotated[Literal[1, 2, 3, 4], Meta(description="version of this format")]
    model: Annotated[ModelFacts, Meta(description="the model that the plan is for; its path is relative to this file")]
    quantizer: Annotated[Text, Meta(description="how codes are chosen; the quantizer that the plan was measured with")]
    layers: Annotated[dict[Name, SchemeText], Meta(min_length=1, description="the scheme of each layer: the part to edit")]
    shapes: Annotated[dict[Name, Shape], Meta(min_length=1, description="rows x columns of each layer")]
    original_bytes: Annotated[Count, Meta(description="bytes of the layers before quantization")]
    rest: RestFacts
    data: DataFacts | None = None
    analysis: Annotated[AnalysisFacts | None, Meta(description="the sensitivity file that the plan comes from")] = None
    budget: Annotated[BudgetFacts | None, Meta(description="the limit that the plan was solved for")] = None
    size: SizeFacts | None = None
    evidence: EvidenceFacts | None = None
    pinned: Annotated[list[Name], Meta(description="layers whose scheme was fixed by hand")] = []
    ties: Annotated[list[Annotated[list[Name], Meta(min_length=2)]], Meta(description="groups of layers that share one scheme")] = []
    axes: Annotated[dict[Name, list[Axis]], Meta(description="output axes of layers where they are not the first")] = {}
    activations: Annotated[
        dict[Name, GroupFacts], Meta(description="tensors between layers that are 8-bit integers, in groups; all others are floating point")
    ] = {}
    equalization: Annotated[
        list[ChainFacts],
        Meta(description="channels that are scaled by powers of two before weights are quantized; the model computes the same"),
    ] = []
    sketches: Annotated[
        list[Name] | None, Meta(description="layers whose inputs are sketched in the artifact, for `mpq monitor`; leave it out for none")
    ] = None
    groups: Annotated[dict[Name, Count], Meta(description="groups of transposed convolutions, each with its own outputs")] = {}


def matrices_in(document: Document, texts: dict[str, str], *at: str | int) -> dict[str, tuple[int, int]]:
    """Rows and columns by layer name.

    Raises:
        MpqError: of the document's type, if a text is not ROWSxCOLUMNS, or the layers have no weights or too many.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, text in texts.items():
        size, mark, alike = text.partition("/")
        rows, _, columns = size.partition("x")
        sound = rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)
        if not sound or (mark and not (alike.isdecimal() and 2 <= int(alike) <= int(rows))):
            raise document.refuse(f"the shape of {shown(name)} is {shown(text)}: give {_ROWS_COLUMNS}; {document.remedy}", *at, name)
        found[name] = matrix_of(int(rows), int(columns), int(alike or 0))
    if sum(rows * columns for rows, columns in found.values()) > LAYER_WEIGHTS:
        largest = max(found, key=lambda name: found[name][0] * found[name][1])
        raise document.refuse(
            f"the layers have more than {LAYER_WEIGHTS:,} weights; the largest is {shown(largest)}: {document.remedy}", *at, largest
        )
    return found


def shape_text(matrix: tuple[int, int]) -> str:
    """The line of a shape, as `matrices_in` reads it."""
    alike, text = alike_rows(matrix), f"{matrix[0]}x{matrix[1]}"
    return f"{text}/{alike}  # {alike:,} of the {matrix[0]:,} rows are one common row, stored once" if alike else text


def check_names(document: Document, file: PlanFile) -> None:
    """Refuse pins, ties, axes, groups and sketches of layers that the plan does not have, and a layer that is tied twice.

    Raises:
        MpqError: of the document's type.
    """
    tied = [name for group in file.ties for name in group]
    for key, names in (
        ("pinned", file.pinned),
        ("ties", tied),
        ("axes", file.axes),
        ("groups", file.groups),
        ("sketches", file.sketches or ()),
    ):
        stranger = next((name for name in names if name not in file.layers), None)
        if stranger is not None:
            raise document.refuse(f"{key} names {shown(stranger)}, which is not among the layers; {document.remedy}", key)
    if len(set(file.sketches or ())) < len(file.sketches or ()):
        raise document.refuse("sketches names a layer twice: name it once", "sketches")
    if len(set(tied)) < len(tied):
        repeated = next(name for name in tied if tied.count(name) > 1)
        raise document.refuse(f"layer {shown(repeated)} is tied twice: put each layer into one group only", "ties")
