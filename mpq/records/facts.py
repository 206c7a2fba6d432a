"""What plans, sensitivity files and artifacts say of the model and the data they come from, as definitions for `validate.py`. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mpq.fields import Count, Integer, Name, Sha256, Share, Size, Text


class ModelFacts(Struct):
    """The source model."""

    sha256: Sha256
    path: Annotated[Text | None, Meta(description="relative to this file")] = None
    kind: Literal["export", "torchscript", "hf", "state_dict", "pickle", "memory"] | None = None
    factory: Annotated[Text | None, Meta(description="package.module:callable, for a state dict")] = None


class SampleCounts(Struct):
    """Numbers of samples on both sides of the split."""

    calibration: Size
    held_out: Size


class DataFacts(Struct):
    """The data of an analysis, and how it is read and split again."""

    source: Text
    sha256: Sha256
    held_out: Share
    seed: Integer
    description: Text = ""
    seq_len: Count | None = None
    num_samples: Count | None = None
    batch_size: Count | None = None
    parts: Annotated[
        list[Count],
        Meta(description="numbers of samples in the order in which they were added to the analysis; each part is split by itself"),
    ] = []
    grown_from: Sha256 | None = None
    samples: SampleCounts | None = None


class RestFacts(Struct, forbid_unknown_fields=True):
    """The part of an artifact that no scheme changes."""

    header_bytes: Size
    data_bytes: Size
    weights: Size
    original_bytes: Size


class LayerFacts(Struct):
    """A layer's weight."""

    parameters: Annotated[list[Name], Meta(min_length=1)]
    shape: Annotated[list[Count], Meta(min_length=1, max_length=32)]
    axes: Annotated[list[Annotated[int, Meta(ge=0, le=31)]], Meta(max_length=32)]
    dtype: Literal["float32", "float16", "bfloat16"]
