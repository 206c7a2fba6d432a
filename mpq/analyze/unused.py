"""Layers that no compared output depends on, such as a pooler when hidden states are compared. They cannot be measured, so they are not
searched.

A layer is left out only if no gradient of the compared outputs reaches it and replacing its weights changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.data.sparse import same_tensors
from mpq.errors import MpqError
from mpq.gradients.projections import gradients_of
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.running.swap import swapped, tensor_of
from mpq.records.layer import Layer


def unused_layers(module: nn.Module, layers: Sequence[Layer], data: Data, comparison: Comparison) -> list[Layer]:
    """The layers whose weights do not affect the compared outputs on any of the samples.

    Args:
        module: the unquantized model; unchanged.
        layers: the layers to search.
        data: calibration samples. Gradients are computed on the first one; layers without a gradient are then changed and run on all.
        comparison: says which outputs are compared.
    """
    suspects = _without_gradient(module, layers, data.first(1).batches[0], comparison)
    for batch in data.batches if suspects else ():
        before = comparison.picked(forward(module, batch))
        suspects = [layer for layer in suspects if _changes_nothing(module, layer, batch, comparison, before)]
    return suspects


def _without_gradient(module: nn.Module, layers: Sequence[Layer], batch: Batch, comparison: Comparison) -> list[Layer]:
    """The layers that no gradient reaches; all layers if the model gives no gradients at all."""
    reached: set[str] = set()
    try:
        with gradients_of(module, layers) as collect, torch.enable_grad():
            picked = comparison.picked(forward(module, batch, gradients=True))
            wanted = [output for output in picked if output.requires_grad]
            with collect(lambda layer, _: reached.add(layer.name)):
                torch.autograd.backward(wanted, [torch.ones_like(output) for output in wanted])
    except (MpqError, RuntimeError):  # recorded programs and integer paths may refuse to be differentiated
        pass
    return [layer for layer in layers if layer.name not in reached]


def _changes_nothing(module: nn.Module, layer: Layer, batch: Batch, comparison: Comparison, before: Sequence[Tensor]) -> bool:
    weights = {}
    for name in layer.parameters:
        own = tensor_of(module, name).detach()
        noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0)).to(own.dtype).to(own.device)
        weights[name] = -own + 10 * own.float().std().to(own.dtype).clamp(min=0.1) * noise
    try:
        with swapped(module, weights):
            after = comparison.picked(forward(module, batch))
    except MpqError:
        return False
    return all(same_tensors(one, other) for one, other in zip(before, after, strict=True))
