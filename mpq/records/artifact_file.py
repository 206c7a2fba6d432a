"""Definitions of the header of an artifact, and of the index of one in several files. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from mpq.formats.stored import DTYPE_BYTES, Stored
from mpq.reading.documents import Document
from mpq.reading.fields import Name, RestDtype, SchemeText, Size, Text
from mpq.records.activations import GroupFacts
from mpq.records.facts import LayerFacts, ModelFacts
from mpq.records.stored_sketches import StoredFacts
from mpq.shown import shown

VERSION = 1
INDEX_VERSION = 1


class TensorFacts(Struct):
    """A tensor's entry in the header of any safetensors file."""

    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[list[Size], Meta(max_length=64)]
    data_offsets: Annotated[list[Size], Meta(min_length=2, max_length=2)]


Tensors = dict[Name, TensorFacts]


class StoredLayerFacts(LayerFacts, kw_only=True):
    """A quantized layer."""

    scheme: SchemeText


class StoredRest(Struct):
    """How unquantized tensors are stored, where not in their own dtypes."""

    dtype: RestDtype
    original_bytes: Annotated[Size, Meta(description="of these tensors in the model, which has them in their own dtypes")]


class MetadataFacts(Struct):
    """The value under "mpq" in the header."""

    version: int
    model: ModelFacts
    quantizer: Text
    aliases: dict[Name, Name]
    config: dict[Name, Any]
    layers: dict[Name, StoredLayerFacts]
    recovery: list[Name] | None = None
    stopped: list[Name] = []
    rest: StoredRest | None = None
    fingerprint: Annotated[str, Meta(max_length=1 << 22)] = ""
    activations: dict[Name, GroupFacts] = {}
    sketches: StoredFacts | None = None
    corrected: Annotated[int, Meta(ge=0, le=7)] | bool = 0


class IndexMetadata(Struct):
    """The facts in an index."""

    mpq_index: int
    total_size: Size = 0


class IndexFile(Struct):
    """The file of every tensor of an artifact in several files."""

    metadata: IndexMetadata
    weight_map: Annotated[dict[Name, Name], Meta(min_length=1)]


def check_tensors(document: Document, tensors: Mapping[str, TensorFacts]) -> int:
    """The size of the data of a safetensors file, whose tensors must be contiguous.

    Raises:
        MpqError: of the document's type, if they overlap, leave a gap, or have a size that does not match their shape.
    """
    ordered = sorted(tensors, key=lambda name: tensors[name].data_offsets)
    ends = [0, *(tensors[name].data_offsets[1] for name in ordered)]
    for name, (before, end) in zip(ordered, itertools.pairwise(ends), strict=True):
        facts = tensors[name]
        width = DTYPE_BYTES.get(facts.dtype)
        if facts.data_offsets[0] != before or end < before or (width and end - before != width * math.prod(facts.shape)):
            reason = f"tensor {shown(name)}, {facts.dtype} {facts.shape}, is at {facts.data_offsets}"
            raise document.refuse(f"{shown(reason, 200)[1:-1]}, where it cannot be; {document.remedy}", name)
    return ends[-1]


def check_parts(document: Document, name: str, parts: Iterable[Stored], tensors: Mapping[str, TensorFacts]) -> None:
    """Refuse a layer whose tensors are not those of its scheme.

    Raises:
        MpqError: of the document's type.
    """
    for part in parts:
        facts = tensors.get(f"{name}.{part.part}")
        if facts is None or (facts.dtype, facts.shape) != (part.dtype, list(part.shape)):
            wanted = f"{part.dtype} {list(part.shape)}"
            is_there = "is not in the file" if facts is None else f"is {facts.dtype} {facts.shape}"
            raise document.refuse(f"tensor {shown(f'{name}.{part.part}')} {is_there}, its scheme needs {wanted}; {document.remedy}")
