"""Variants: the fake-quantized weight of any (layer, scheme), made when asked for and kept while memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mpq.errors import MpqError
from mpq.formats.scheme import Scheme
from mpq.models.memory.offload import Offload
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.tensors.fp16_range import fits_range, lost_rows
from mpq.tensors.matrix import from_matrix, to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics

CACHE_BYTES = 2 << 30


class Variants:
    """The weights of `module` under schemes.

    Args:
        module: the unquantized model; its weights are read, never changed.
        layers: the searched layers.
        quantizer: what chooses the codes.
        statistics: of the layers' inputs, by layer name, for a quantizer that needs them.
        cache_bytes: limit of the memory held.
        offload: keeps all variants on disk instead.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Iterable[Layer],
        quantizer: Quantizer,
        *,
        statistics: Mapping[str, Statistics] | None = None,
        cache_bytes: int = CACHE_BYTES,
        offload: Offload | None = None,
    ) -> None:
        self.module, self.quantizer = module, quantizer
        self.layers = {layer.name: layer for layer in layers}
        self._statistics = {} if statistics is None else statistics  # asking a lazy mapping for its length would collect all of it
        self._cache: OrderedDict[tuple[str, Scheme], Tensor] = OrderedDict()
        self._held, self._limit, self._offload = 0, cache_bytes, offload

    def matrix(self, name: str) -> Tensor:
        """The unquantized weight of one layer as a float32 matrix."""
        layer = self.layers[name]
        return to_matrix(tensor_of(self.module, layer.parameters[0]).detach(), layer.axes, layer.groups)

    def quantized(self, name: str, scheme: Scheme, *, instead: tuple[Tensor, Statistics] | None = None) -> QuantizedWeight:
        """The codes of one layer under one scheme; `instead` of its matrix and statistics there may be others."""
        matrix, statistics = instead or (self.matrix(name), self._statistics.get(name))
        try:
            return self.quantizer.quantize(matrix, scheme, statistics)
        except MpqError as error:
            raise type(error)(f"layer '{name}' at {scheme}: {error}") from error

    def weight(self, name: str, scheme: Scheme) -> Tensor:
        """The fake-quantized parameter of one layer under one scheme, in the parameter's shape and dtype."""
        key = (name, scheme)
        found = self._cache.get(key)
        if found is None:
            layer = self.layers[name]
            found = as_parameter(self.quantized(name, scheme), layer)
            if self._offload is None:
                self._held += found.numel() * found.element_size()
            else:
                found = self._offload.keep(found)
            self._cache[key] = found
            while self._held > self._limit and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._held -= dropped.numel() * dropped.element_size()
        self._cache.move_to_end(key)
        return found

    def weights(self, schemes: Mapping[str, Scheme]) -> dict[str, Tensor]:
        """The fake-quantized parameters of a whole plan, by canonical parameter name."""
        return {self.layers[name].parameters[0]: self.weight(name, scheme) for name, scheme in schemes.items()}


def as_parameter(weight: QuantizedWeight, layer: Layer) -> Tensor:
    """The values that a quantized weight stands for, in the parameter's shape and dtype."""
    return from_matrix(weight.dequantize(), layer.shape, layer.axes, layer.groups).to(getattr(torch, layer.dtype))


def as_parameters(weights: Mapping[str, QuantizedWeight], layers: Iterable[Layer]) -> dict[str, Tensor]:
    """What quantized weights, by layer name, stand for, by canonical parameter name; layers without one are left out."""
    return {layer.parameters[0]: as_parameter(weights[layer.name], layer) for layer in layers if layer.name in weights}


def storable_candidates(
    module: nn.Module, layers: Iterable[Layer], candidates: Mapping[str, Sequence[Scheme]]
) -> tuple[dict[str, tuple[Scheme, ...]], list[str]]:
    """The candidates of each layer that fp16's range does not spoil, or its 16-bit format if none is left; and a line for each loss.

    A candidate that loses a few small rows only is kept, with a line too.
    """
    kept, lines = {}, []
    for layer in layers:
        matrix = to_matrix(tensor_of(module, layer.parameters[0]).detach(), layer.axes, layer.groups)
        fitting = tuple(scheme for scheme in candidates[layer.name] if fits_range(matrix, scheme))
        lost = ", ".join(str(scheme) for scheme in candidates[layer.name] if scheme not in fitting)
        kept[layer.name] = fitting or (Scheme(sixteen_bits(module, layer)),)
        if lost:
            side = "large" if bool(matrix.abs().max() > 1) else "small"
            instead = "" if fitting else f"; it stays at {kept[layer.name][0]}"
            lines.append(f"left out for '{layer.name}', whose weights are too {side} for numbers in fp16: {lost}{instead}")
        lines += _lines_of_lost_rows(layer, matrix, kept[layer.name])
    return kept, lines


def _lines_of_lost_rows(layer: Layer, matrix: Tensor, schemes: Iterable[Scheme]) -> list[str]:
    """At most one line: how many rows of a layer are too small for the numbers of which schemes."""
    counts = {str(scheme): lost_rows(matrix, scheme) for scheme in schemes}
    named = ", ".join(f"{count:,} at {scheme}" for scheme, count in counts.items() if count)
    return (
        [f"of the {layer.matrix[0]:,} rows of '{layer.name}', some are too small for numbers in fp16 and are lost: {named}"]
        if named
        else []
    )


def sixteen_bits(module: nn.Module, layer: Layer) -> str:
    """The 16-bit format of a layer: its own if it has 16 bits; fp16 for fp32 unless its range loses more than bf16, then that."""
    if layer.dtype == "bfloat16":
        return "bf16"
    if layer.dtype == "float16":
        return "fp16"
    weight = tensor_of(module, layer.parameters[0]).detach()
    return "fp16" if fits_range(weight.reshape(1, -1), Scheme("fp16")) else "bf16"
