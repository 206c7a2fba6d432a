"""Tensors between layers whose channels can be scaled, because what computes them and all that reads them are known.

Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721) scales the channels between two layers; SmoothQuant (Xiao et al. 2022,
arXiv 2211.10438) those between a norm and the layers behind it. Here both are one: the rows of a norm, convolution or linear layer are
multiplied, and the input channels of the layers behind are divided. That is possible where everything in between grows by a factor as its
input does (ReLU, pooling, products with other data), and where nothing else reads the tensor. A tensor with another reader, such as a
residual addition, is left alone, and so are weights that are used twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mpq.activations.trace import Source, Trace
from mpq.records.equalization import Chain
from mpq.records.layer import Layer

_NORMS = re.compile(r"^(.*batch_norm.*|native_layer_norm|native_group_norm|_fused_rms_norm)$")
_BIASES = {"conv": "bias", "linear": "self"}


@dataclass(frozen=True)
class Link:
    """A tensor whose channels can be scaled.

    Args:
        readers: the convolutions and products that read it.
        touched: these, and the averages in between.
        multiplied, divided: see `Chain`.
        channels: how many.
        free: whether no weight behind mixes channels, so that dividing its rows costs nothing.
    """

    readers: tuple[str, ...]
    touched: tuple[str, ...]
    multiplied: tuple[str, ...]
    divided: tuple[str, ...]
    channels: int
    free: bool

    def chain(self, exponents: Sequence[int]) -> Chain:
        """The chain with an exponent for each channel."""
        return Chain(self.readers[0], self.multiplied, self.divided, tuple(exponents))


def links(trace: Trace, layers: Sequence[Layer], lengths: dict[str, int]) -> list[Link]:
    """All such tensors of a model, in the order in which it computes them.

    Args:
        trace: of the model.
        layers: the searched layers.
        lengths: the number of rows of each tensor of the state dict, by name.
    """
    found = (_link(trace, number, {layer.name: layer for layer in layers}, lengths) for number in range(len(trace.sources)))
    return [each for each in found if each is not None]


def _link(trace: Trace, number: int, layers: dict[str, Layer], lengths: dict[str, int]) -> Link | None:
    multiplied = _computed_by(trace, trace.sources[number], layers)
    read = _read_by(trace, number) if multiplied else None
    if read is None or any(trace.uses[name] > 1 for name in multiplied):
        return None
    channels = {lengths[name] for name in multiplied}
    readers = [reader for reader in read if reader in trace.layers]
    behind = [layers[trace.layers[reader]] for reader in readers]
    weights = tuple(layer.parameters[0] for layer in behind)
    if not readers or len(channels) > 1 or any(trace.uses[name] > 1 for name in weights) or not all(map(_is_plain, behind)):
        return None
    count = channels.pop()
    if any(not _fits(reader, layer, count) for reader, layer in zip(readers, behind, strict=True)):
        return None
    return Link(tuple(readers), tuple(read), multiplied, weights, count, all(layer.shape[1] == 1 < count for layer in behind))


def _computed_by(trace: Trace, source: Source, layers: dict[str, Layer]) -> tuple[str, ...]:
    """The tensors whose rows scale the result of an operator; empty if there are none that are known."""
    own, kind = source.tensors, source.name.partition(".")[0]
    if source.name in trace.layers and len(source.inputs) == 1:
        layer, bias = layers[trace.layers[source.name]], own.get(_BIASES[kind])
        return (layer.parameters[0], *([] if bias is None else [bias])) if _is_plain(layer) and bias != "" else ()
    if _NORMS.match(source.operation):
        affine = [own[name] for name in ("weight", "bias") if name in own]
        return tuple(affine) if "weight" in own and "" not in affine and ("bias" in own or "rms" in source.operation) else ()
    if source.operation == "mul" and len(own) == 1 and len(source.inputs) == 1:
        return tuple(name for name in own.values() if name)
    return ()


def _read_by(trace: Trace, start: int) -> list[str] | None:
    """The readers of a tensor, through what only scales with it; None if anything else reads it."""
    operators = {source.name: number for number, source in enumerate(trace.sources) if source.name}
    inside, waiting, found = {start}, [start], list[str]()
    while waiting:
        source = trace.sources[waiting.pop()]
        if source.is_output:
            return None
        behind = [number for _, number in source.others]
        for reader in source.readers:
            found.append(reader)
            if reader not in trace.layers:
                behind.append(operators[".".join(reader.split(".")[:2])])
        if not all(trace.sources[number].homogeneous for number in behind):
            return None
        waiting += [number for number in behind if number not in inside]
        inside.update(behind)
    twice = any(len(inside & set(trace.sources[number].inputs)) > 1 for number in inside)  # x * relu(x) grows by the square
    return None if twice else sorted(found, key=lambda reader: reader not in trace.layers)


def _is_plain(layer: Layer) -> bool:
    return layer.axes == (0,) and layer.groups == 1


def _fits(reader: str, layer: Layer, channels: int) -> bool:
    columns = layer.shape[1]
    return channels % columns == 0 and layer.shape[0] % (channels // columns) == 0 if reader.startswith("conv") else columns == channels
