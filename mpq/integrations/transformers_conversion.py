"""How `from_pretrained` combines the parts of a layer into one parameter while reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps, WeightConverter

from mpq.formats.stored import PARTS

Place = tuple[str, str]
"""The name of a parameter, and which part of it a tensor of the file is."""


class Packs(Protocol):
    """Builds the parameter `name` of `model` from its parts."""

    def parameter_of(self, name: str, parts: Mapping[str, Tensor], model: nn.Module) -> nn.Parameter: ...


class _Pack(ConversionOps):  # type: ignore[misc]
    """The parts of one layer become its parameter."""

    def __init__(self, quantizer: Packs) -> None:
        self.hf_quantizer = quantizer  # an attribute that prevents Transformers from changing the dtype of the parts

    def __deepcopy__(self, memo: Any) -> _Pack:
        """Itself: Transformers copies the conversion for each layer, but the quantizer must be shared."""
        return self

    def convert(
        self, input_dict: Mapping[str, list[Tensor]], *, full_layer_name: str, model: nn.Module, **_: Any
    ) -> dict[str, nn.Parameter]:
        """The parameter by its name in the model."""
        parts = {part: found[0] for part, found in input_dict.items()}
        return {full_layer_name: self.hf_quantizer.parameter_of(full_layer_name, parts, model)}


class _Conversion(WeightConverter):  # type: ignore[misc]
    """Finds the tensors of layers by their full names; patterns could match other tensors."""

    place: Callable[[str], Place | None]

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """The parameter that a tensor of the file belongs to, and its part; the name itself and None if it belongs to no layer."""
        return self.place(source_key) or (source_key, None)


def conversion_of(parts: Mapping[str, Place], quantizer: Packs) -> WeightConverter:
    """The conversion for tensors of the file by their names."""
    made = _Conversion(source_patterns=list(PARTS), target_patterns="weight", operations=[_Pack(quantizer)])
    found = dict(parts)
    made.place = lambda name: found.get(name)  # a function is not copied with its owner
    return made
