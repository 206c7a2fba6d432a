"""The change of a layer's weight under each scheme, for inner products with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.models.memory.devices import device_of
from mpq.models.running.fake_quantized import Variants, as_parameter
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix

CACHE_BYTES = 256 << 20
_PIECE_VALUES = 1 << 24  # of some schemes of one layer in memory at a time


class Changes:
    """The changes of layers' weights under schemes; kept in bfloat16 while memory allows, else made of the packed codes each time.

    Args:
        variants: gives the weights under schemes.
        schemes: by layer name, in the order of the rows.
        origin: gives the weight that a layer's changes are relative to, by the layer's name.
    """

    def __init__(self, variants: Variants, schemes: Mapping[str, Sequence[Scheme]], origin: Callable[[str], Tensor]) -> None:
        self.schemes = schemes
        self._variants, self._origin = variants, origin
        self._kept: dict[tuple[str, Scheme], Tensor] = {}
        self._held = 0

    def fill(self) -> None:
        """Do now, while the module has its own weights, what needs these: quantize, and make the changes to 16-bit formats."""
        self._variants.fill(self.schemes, lambda *_: None)
        for name, schemes in self.schemes.items():
            for scheme in schemes:
                if scheme.is_float:
                    self._keep(name, scheme, self._made(name, scheme, self._matrix(self._origin(name), name)))

    def products(self, layer: Layer, gradient: Tensor) -> list[float]:
        """The inner product of a gradient, in the weight's shape, with the change under each scheme."""
        flat = to_matrix(gradient, layer.axes, layer.groups).reshape(-1)
        return [product for piece in self.pieces(layer) for product in (piece.flatten(1) @ flat).tolist()]

    def of(self, layer: Layer) -> Tensor:
        """All changes of one layer's matrix, float32 [schemes, rows, columns]."""
        return torch.cat(list(self.pieces(layer)))

    def pieces(self, layer: Layer) -> Iterator[Tensor]:
        """All changes of one layer's matrix in the order of its schemes, some at a time, float32 [some schemes, rows, columns]."""
        schemes, step = self.schemes[layer.name], max(1, _PIECE_VALUES // layer.weights)
        origin: Tensor | None = None
        for start in range(0, len(schemes), step):
            part = schemes[start : start + step]
            piece = torch.empty(len(part), *layer.matrix, device=device_of(self._variants.module))
            for row, scheme in zip(piece, part, strict=True):
                change = self._kept.get((layer.name, scheme))
                if change is None:
                    origin = self._matrix(self._origin(layer.name), layer.name) if origin is None else origin
                    change = self._made(layer.name, scheme, origin)
                    if self._held + 2 * change.numel() <= CACHE_BYTES:
                        self._keep(layer.name, scheme, change)
                row.copy_(change)
            yield piece

    def _made(self, name: str, scheme: Scheme, origin: Tensor) -> Tensor:
        changed = as_parameter(self._variants.quantized(name, scheme), self._variants.layers[name]).to(origin.device)
        return (self._matrix(changed, name) - origin).bfloat16()

    def _matrix(self, weight: Tensor, name: str) -> Tensor:
        layer = self._variants.layers[name]
        return to_matrix(weight.detach(), layer.axes, layer.groups)

    def _keep(self, name: str, scheme: Scheme, change: Tensor) -> None:
        self._kept[name, scheme] = change
        self._held += 2 * change.numel()
