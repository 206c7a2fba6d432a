"""Definitions of the facts about model and data in plans, sensitivity files and artifacts, for `reading/validate.py`. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from mpq.errors import MpqError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.limits import LAYER_WEIGHTS
from mpq.reading.documents import Document
from mpq.reading.fields import Axis, Count, Dtype, Integer, Name, RestDtype, SchemeText, Sha256, Share, Size, Text
from mpq.records.layer import Layer
from mpq.shown import shown


class ModelFacts(Struct):
    """The source model."""

    sha256: Sha256
    path: Annotated[Text | None, Meta(description="relative to this file")] = None
    kind: Literal["export", "torchscript", "hf", "state_dict", "pickle", "memory"] | None = None
    factory: Annotated[Text | None, Meta(description="package.module:callable, for a state dict")] = None
    checkpoint_key: Annotated[Text | None, Meta(description="the entry of a checkpoint that holds the weights, or a prefix of names")] = (
        None
    )
    allow_unexpected: Annotated[bool, Meta(description="names of the checkpoint that the module does not have are left out")] = False


def checkpoint_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """How the weights of a checkpoint were chosen, from the facts of a model, as `load_model` takes it."""
    return {"key": model.get("checkpoint_key"), "allow_unexpected": bool(model.get("allow_unexpected"))}


class SampleCounts(Struct):
    """Numbers of samples on both sides of the split."""

    calibration: Size
    held_out: Size
    unused: Annotated[Size, Meta(description="in the gap between them")] = 0


class DataFacts(Struct):
    """The data of an analysis, and how it is read and split again."""

    source: Text
    sha256: Sha256
    held_out: Share
    seed: Integer
    description: Text = ""
    seq_len: Count | None = None
    num_samples: Count | None = None
    spread: Annotated[bool, Meta(description="num_samples are spread evenly over the source; else they are the first ones")] = False
    batch_size: Count | None = None
    mask: Text | None = None
    batch_axis: Annotated[Text | None, Meta(description="axis of the inputs that counts samples, or none: each batch is one sample")] = None
    text_field: Text | None = None
    seed_each_forward: bool = False
    split: Annotated[Literal["position", "random"] | None, Meta(description="how samples are held out; missing in older files")] = None
    gap: Annotated[Size, Meta(description="for a split by position: samples between the two sides that neither uses")] = 0
    parts: Annotated[
        list[Count],
        Meta(description="numbers of samples in the order in which they were added to the analysis; each part is split separately"),
    ] = []
    grown_from: Sha256 | None = None
    samples: SampleCounts | UnsetType = UNSET
    caution: Annotated[Text | None, Meta(description="why errors on other data may be larger")] = None
    shift: Annotated[Text | None, Meta(description="why predicted errors may be too small")] = None


class RestFacts(Struct, forbid_unknown_fields=True):
    """The part of an artifact that no scheme changes."""

    header_bytes: Size
    data_bytes: Size
    weights: Size
    original_bytes: Size
    dtype: Annotated[RestDtype | None, Meta(description="what unquantized tensors are stored in where that is smaller")] = None


class LayerFacts(Struct):
    """A layer's weight."""

    parameters: Annotated[list[Name], Meta(min_length=1)]
    shape: Annotated[list[Count], Meta(min_length=1, max_length=32)]
    axes: Annotated[list[Axis], Meta(max_length=32)]
    dtype: Dtype
    groups: Annotated[Count, Meta(description="parts of the first axis, each with its own outputs")] = 1
    alike: Annotated[Size, Meta(description="rows that are one common row, which is stored once")] = 0


class NamedLayerFacts(LayerFacts, kw_only=True):
    """A layer and its candidates."""

    name: Name
    candidates: list[SchemeText]
    operator: Text = "other"
    consumers: list[Name] = []


def layers_in(document: Document, found: Iterable[tuple[str, LayerFacts, tuple[str | int, ...]]]) -> tuple[Layer, ...]:
    """The layers of a document, from the name, the facts and the place of each.

    Raises:
        MpqError: of the document's type, if a name is repeated, an output axis is out of range, or there are too many weights.
    """
    layers: dict[str, Layer] = {}
    weights = 0
    for name, facts, at in found:
        if name in layers:
            raise document.refuse(f"the layer {shown(name)} appears twice; {document.remedy}", *at)
        if len(set(facts.axes)) < len(facts.axes) or any(axis >= len(facts.shape) for axis in facts.axes):
            raise document.refuse(f"the axes of layer {shown(name)} are {facts.axes} of {len(facts.shape)}; {document.remedy}", *at)
        if facts.groups > 1 and (len(facts.shape) < 3 or 0 in facts.axes or facts.shape[0] % facts.groups):
            raise document.refuse(f"layer {shown(name)} of shape {facts.shape} cannot have {facts.groups} groups; {document.remedy}", *at)
        if facts.alike and not _may_share(facts):
            raise document.refuse(
                f"layer {shown(name)} of shape {facts.shape} cannot have {facts.alike} rows alike; {document.remedy}", *at
            )
        names, shape, axes = tuple(facts.parameters), tuple(facts.shape), tuple(facts.axes)
        layer = Layer(name, names, shape, axes, facts.dtype, groups=facts.groups, alike=facts.alike)
        if isinstance(facts, NamedLayerFacts):
            layer = replace(layer, operator=facts.operator, consumers=tuple(facts.consumers))
        weights += layer.weights
        if weights > LAYER_WEIGHTS:
            raise document.refuse(f"with layer {shown(name)} the layers have more than {LAYER_WEIGHTS:,} weights; {document.remedy}", *at)
        layers[name] = layer
    return tuple(layers.values())


def _may_share(facts: LayerFacts) -> bool:
    """Whether so many rows of a layer can be one common row."""
    return facts.groups == 1 and facts.axes == [0] and len(facts.shape) == 2 and 2 <= facts.alike <= facts.shape[0]


def scheme_in(document: Document, text: str, *at: str | int, error: type[MpqError] | None = None) -> Scheme:
    """The scheme named in a document.

    Raises:
        MpqError: with the place, if it is not a scheme; of type `error`, else of the document's.
    """
    try:
        return parse_scheme(text)
    except MpqError as cause:
        raise (error or document.error)(f"{document.place(*at)}: {cause}") from cause
