"""Definitions of other tools' assignments, as far as mpq reads them. No torch."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from mpq.reading.fields import Name, Text

Bits = Annotated[int, Meta(ge=1, le=64)]
GroupSize = Annotated[int, Meta(ge=-1, le=2**31)]


class Settings(Struct):
    """Settings of a layer, or of all layers without their own."""

    bits: Bits | None = None
    group_size: GroupSize | None = None
    sym: bool | None = None


LayerConfig = dict[Name, Text | Settings]
"""AutoRound's layer_config: a preset such as W4A16, or settings."""


class Checkpoint(Settings):
    """AutoRound's quantization_config."""

    extra_config: LayerConfig = {}


class Dynamic(Settings):
    """GPTQModel's quantize_config.json."""

    dynamic: dict[Name, Settings | None] | None = None


class Quantizer(Struct):
    """ModelOpt's attributes of a quantizer: bits, or those of exponent and mantissa, as [4, 3] or "e4m3"."""

    num_bits: Bits | Text | list[Bits]
    block_sizes: dict[Name, Any] | None = None


class QuantizerEntry(Struct):
    """An entry of ModelOpt's quant_cfg."""

    quantizer_name: Name
    cfg: Quantizer | None = None
    enable: bool | None = None


class QuantizerConfig(Struct):
    """ModelOpt's configuration."""

    quant_cfg: list[QuantizerEntry] | dict[Name, Quantizer | None]


class Recipe(Struct):
    """ModelOpt's recipe."""

    quantize: QuantizerConfig


class Best(Struct):
    """The best result of a ModelOpt search."""

    recipe: dict[Name, Text]


class Candidate(Struct):
    """What that search records about some modules."""

    module_names: list[Name] = []


class SearchState(Struct):
    """ModelOpt's search state."""

    best: Best
    candidate_stats: dict[Name, Candidate] | None = None
