"""The change of a layer's weight under each scheme, for inner products with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.models.running.fake_quantized import Variants
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix

CACHE_BYTES = 2 << 30


class Changes:
    """The changes of layers' weights under schemes; kept in bfloat16 while memory allows.

    Args:
        variants: gives the weights under schemes.
        schemes: by layer name, in the order of the rows.
        origin: gives the weight that a layer's changes are relative to, by the layer's name.
    """

    def __init__(self, variants: Variants, schemes: Mapping[str, Sequence[Scheme]], origin: Callable[[str], Tensor]) -> None:
        self.schemes = schemes
        self._variants, self._origin = variants, origin
        self._kept: dict[str, Tensor] = {}
        self._held = 0

    def fill(self) -> None:
        """Compute all changes now, while the module has its own weights, regardless of memory."""
        for name in self.schemes:
            self._keep(name, self._made(name))

    def products(self, layer: Layer, gradient: Tensor) -> list[float]:
        """The inner product of a gradient, in the weight's shape, with the change under each scheme."""
        found: list[float] = (self.of(layer).flatten(1) @ to_matrix(gradient, layer.axes, layer.groups).reshape(-1)).tolist()
        return found

    def of(self, layer: Layer) -> Tensor:
        """All changes of one layer's matrix, float32 [schemes, rows, columns]."""
        if layer.name in self._kept:
            return self._kept[layer.name].float()
        changes = self._made(layer.name)
        if self._held + 2 * changes.numel() <= CACHE_BYTES:
            self._keep(layer.name, changes)
        return changes.float()

    def _made(self, name: str) -> Tensor:
        layer = self._variants.layers[name]
        origin = to_matrix(self._origin(name).detach(), layer.axes, layer.groups)
        weights = (self._variants.weight(name, scheme) for scheme in self.schemes[name])
        return torch.stack([to_matrix(weight, layer.axes, layer.groups) - origin for weight in weights]).bfloat16()

    def _keep(self, name: str, changes: Tensor) -> None:
        self._kept[name] = changes
        self._held += 2 * changes.numel()
