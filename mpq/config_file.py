"""The definition of a configuration file: one section per command, with the names of its long options. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mpq.reading.fields import Bytes, Count, Integer, Limit, Name, Number, Positive, RestDtype, SchemeText, Scope, Share, Size, Text

_One = Text | Integer
_Some = _One | list[_One]
_SeqLen = Annotated[Count, Meta(description="tokens per window, for text")]
_NumSamples = Annotated[Count, Meta(description="use only so many samples, spread evenly over the source")]


class AnalyzeSection(Struct, forbid_unknown_fields=True):
    """Settings of `mpq analyze`."""

    calib: Annotated[
        Text | None,
        Meta(description="inputs: .pt, .npz, .safetensors, text, JSONL, CSV, Parquet, a folder of images, or package.module:callable"),
    ] = None
    candidates: Annotated[_Some | None, Meta(description="bits (4), ranges (2..8) or schemes (int4-g32)", examples=[["4", "8", "16"]])] = (
        None
    )
    targets: Annotated[_Some | None, Meta(description="layers to search: exact names, globs, or re:...")] = None
    ignore: Annotated[_Some | None, Meta(description="layers to leave unquantized")] = None
    metric: Annotated[
        Text | None,
        Meta(description="how the error at the output is measured"),
    ] = None
    outputs: Annotated[_Some | None, Meta(description="outputs to compare, by name or glob, each optionally with a weight: boxes=2")] = None
    quantizer: Annotated[Text | None, Meta(description="how codes are chosen")] = None
    method: Annotated[Text | None, Meta(description="how sensitivities are found")] = None
    activations: Annotated[
        _Some | None, Meta(description="also measure tensors between layers as integers: 8 with fixed ranges, 8d with a scale per token")
    ] = None
    equalize: Annotated[bool | None, Meta(description="with activations: scale channels first, if held-out samples agree")] = None
    held_out: Annotated[Share | None, Meta(description="share of the samples held out for the search's decision")] = None
    seed: Annotated[Integer | None, Meta(description="seed of the split")] = None
    seq_len: _SeqLen | None = None
    num_samples: _NumSamples | None = None
    batch_size: Annotated[Count | None, Meta(description="samples per batch")] = None
    mask: Annotated[Text | None, Meta(description="the input that says which positions are data")] = None
    seed_each_forward: Annotated[bool | None, Meta(description="start every call of the model with the same random seed")] = None
    split: Annotated[Literal["position", "random"] | None, Meta(description="how samples are held out")] = None
    batch_axis: Annotated[Text | None, Meta(description="axis of the inputs that counts samples, or none")] = None
    text_field: Annotated[Text | None, Meta(description="the field that holds the text")] = None


class SearchSection(Struct, forbid_unknown_fields=True):
    """Settings of `mpq search`."""

    budget: Limit | None = None
    scope: Scope | None = None
    pins: Annotated[dict[Name, SchemeText] | None, Meta(description="scheme by pattern of layer names; a name wins over a pattern")] = None
    ties: Annotated[
        Text | list[Text | Annotated[list[Name], Meta(min_length=2)]] | None,
        Meta(description="groups of layers that share one scheme; auto: what runtimes fuse"),
    ] = None
    min_bits: Annotated[
        dict[Name, Annotated[int, Meta(ge=1, le=64)]] | None, Meta(description="minimum bits by pattern of layer names")
    ] = None
    candidates: Annotated[dict[Name, _Some] | None, Meta(description="the schemes that layers are restricted to, by pattern")] = None
    costs: Annotated[
        dict[Name, Positive] | None,
        Meta(description="limit for the total of a cost, by the CSV file (layer,scheme,NAME) that holds it"),
    ] = None
    max_error: Annotated[
        Number | None, Meta(description="instead of a budget: the smallest plan whose held-out error stays within this")
    ] = None
    max_drop: Annotated[
        Text | Number | None, Meta(description="instead of a budget: the smallest plan that loses at most this much of the metric")
    ] = None
    metric: Annotated[Text | None, Meta(description="package.module:callable, your own metric for max_drop")] = None
    max_latency: Annotated[Text | None, Meta(description="limit on the time of one call, such as 3ms, by the file of mpq profile")] = None
    memory: Annotated[Limit | None, Meta(description="limit of the loaded model with packed weights: 20MB or 30%")] = None
    start: Annotated[Text | dict[Name, SchemeText] | None, Meta(description="a plan to start from: its path, or schemes by layer name")] = (
        None
    )
    trials: Annotated[
        Size | None, Meta(description="plans to evaluate on the model, in addition to the exact and uniform ones; 0 uses the table only")
    ] = None
    timeout: Annotated[Positive | None, Meta(description="seconds after which no new trial starts")] = None
    seed: Annotated[Integer | None, Meta(description="seed of everything random")] = None
    storage: Annotated[Text | None, Meta(description="URL of an Optuna study")] = None
    rest: Annotated[
        RestDtype | None, Meta(description="dtype for unquantized floating-point tensors where it is smaller than their own")
    ] = None
    activations: Annotated[
        Text | Number | None, Meta(description="measured tensors that become integers: all, off, or the largest error that they may add")
    ] = None
    sketches: Annotated[
        bool | None, Meta(description="make room for sketches of the calibration data in the artifact, for mpq monitor")
    ] = None


class CheckSection(Struct, forbid_unknown_fields=True):
    """Settings of `mpq check`."""

    budget: Limit | None = None
    scope: Scope | None = None
    max_error: Annotated[Number | None, Meta(description="limit for the held-out error, in the plan's metric")] = None
    max_loaded: Annotated[Bytes | None, Meta(description="limit for the memory of the loaded model: 64MB")] = None
    max_loaded_packed: Annotated[Bytes | None, Meta(description="the same, loaded with packed=True")] = None
    data: Annotated[Text | None, Meta(description="data to evaluate artifacts on; max_error limits the error")] = None
    metric: Annotated[Text | None, Meta(description="which metric of mpq eval")] = None
    seq_len: _SeqLen | None = None
    num_samples: _NumSamples | None = None


class ConfigFile(Struct, forbid_unknown_fields=True):
    """Settings, one section per command, named like the long options; the command line overrides them."""

    analyze: AnalyzeSection | None = None
    search: SearchSection | None = None
    check: CheckSection | None = None
