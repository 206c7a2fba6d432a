"""Layers without effect in a single call of a model with state: the state is restored before every call, and is often zero then.

The weight that multiplies the state of a recurrent cell has no effect on the first step. Its errors would all be exactly zero, and a search
would give it the fewest possible bits, although every later step depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from mpq.data.batch import Batch
from mpq.models.running.forward import forward
from mpq.models.running.habits import habits_of
from mpq.models.running.swap import swapped, tensor_of
from mpq.records.layer import Layer


def without_effect(module: nn.Module, layers: Sequence[Layer], batches: Iterable[Batch]) -> list[Layer]:
    """The layers of a model with state whose weights, with noise added, change no output on any batch; empty for other models."""
    habits = habits_of(module)
    remaining = list(layers) if habits is not None and habits.state else []
    for batch in batches:
        if not remaining:
            break
        outputs = forward(module, batch)
        remaining = [layer for layer in remaining if _is_idle(module, layer, batch, [output.clone() for output in outputs])]
    return remaining


def _is_idle(module: nn.Module, layer: Layer, batch: Batch, outputs: Sequence[torch.Tensor]) -> bool:
    name = layer.parameters[0]
    weight = tensor_of(module, name).detach()
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight) * weight.abs().mean()
    with swapped(module, {name: weight + noise}):  # a flipped sign has no effect if weights are divided by their norm
        found = forward(module, batch)
    return len(found) == len(outputs) and all(torch.equal(now, before) for now, before in zip(found, outputs, strict=True))
