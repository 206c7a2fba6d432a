"""Marks the layers with rows that are one common row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.tensors.common_rows import common_rows, spread_of


def with_shared_rows(module: nn.Module, layers: Iterable[Layer]) -> tuple[list[Layer], dict[str, str]]:
    """The layers, each with the number of its rows that are one common row, and a note for each that has some, by its name.

    Args:
        module: the unquantized model.
        layers: its layers.
    """
    found, notes = list[Layer](), dict[str, str]()
    for layer in layers:
        weight = tensor_of(module, layer.parameters[0]).detach()
        table = layer.axes == (0,) and weight.ndim == 2 and layer.groups == 1
        common = common_rows(weight.float()) if table else None
        if common is not None:
            layer = replace(layer, alike=int(common.sum()))
            within = spread_of(weight.float(), common)
            near = f" (within {100 * within:.2g}% on average)" if within else ""
            notes[layer.name] = f"{layer.alike:,} of {len(weight):,} rows of {layer.name} are one common row{near}: stored once"
        found.append(layer)
    return found, notes
