"""The change of a layer's weight under each scheme, for inner products with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.models.memory.devices import device_of
from mpq.models.running.fake_quantized import Variants
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight

CACHE_BYTES = 256 << 20
_PIECE_VALUES = 1 << 20  # of some rows of one layer in memory at a time
Piece = tuple[slice, Tensor]
"""Some rows of a layer's matrix, and the changes there under each scheme, float32 [schemes, some rows, columns]."""


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
        self._held, self._limit = 0, CACHE_BYTES if variants.offload is None else min(CACHE_BYTES, variants.offload.limit)

    def fill(self) -> None:
        """Do now, while the module has its own weights, what needs these: quantize, and make the changes to 16-bit formats."""
        self._variants.fill(self.schemes, lambda *_: None)
        for name, schemes in self.schemes.items():
            for scheme in schemes:
                if scheme.is_float:
                    self._keep(name, scheme, self._made(name, scheme, self._matrix(self._origin(name), name)))

    def products(self, layer: Layer, gradient: Tensor) -> list[float]:
        """The inner product of a gradient, in the weight's shape, with the change under each scheme."""
        matrix = to_matrix(gradient, layer.axes, layer.groups)
        return torch.stack([piece.flatten(1) @ matrix[rows].reshape(-1) for rows, piece in self.pieces(layer)]).sum(0).tolist()

    def of(self, layer: Layer) -> Tensor:
        """All changes of one layer's matrix, float32 [schemes, rows, columns]."""
        return torch.cat([piece for _, piece in self.pieces(layer)], 1)

    def pieces(self, layer: Layer) -> Iterator[Piece]:
        """All changes of one layer's matrix, some rows at a time; each weight is made of its codes once."""
        schemes, (count, columns) = self.schemes[layer.name], layer.matrix
        origin, weights = None, dict[Scheme, QuantizedWeight]()
        for scheme in schemes:
            if (layer.name, scheme) not in self._kept:
                origin = self._matrix(self._origin(layer.name), layer.name) if origin is None else origin
                if self._held + 2 * layer.weights <= self._limit:
                    self._keep(layer.name, scheme, self._made(layer.name, scheme, origin))
                else:
                    weights[scheme] = self._variants.quantized(layer.name, scheme)
        step = max(1, _PIECE_VALUES // (len(schemes) * columns))
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            piece = torch.empty(len(schemes), rows.stop - start, columns, device=device_of(self._variants.module))
            for into, scheme in zip(piece, schemes, strict=True):
                if scheme in weights and origin is not None:
                    into.copy_(self._change(weights[scheme].rows(rows), layer, origin[rows]))
                else:
                    into.copy_(self._kept[layer.name, scheme][rows])
            yield rows, piece

    def _change(self, weight: QuantizedWeight, layer: Layer, origin: Tensor) -> Tensor:
        """The change of some rows: in the weight's own dtype, rounded to bfloat16."""
        changed = weight.dequantize().to(getattr(torch, layer.dtype)).to(origin.device)
        return (changed.float() - origin).bfloat16()

    def _made(self, name: str, scheme: Scheme, origin: Tensor) -> Tensor:
        return self._change(self._variants.quantized(name, scheme), self._variants.layers[name], origin)

    def _matrix(self, weight: Tensor, name: str) -> Tensor:
        layer = self._variants.layers[name]
        return to_matrix(weight.detach(), layer.axes, layer.groups)

    def _keep(self, name: str, scheme: Scheme, change: Tensor) -> None:
        self._kept[name, scheme] = change
        self._held += 2 * change.numel()
