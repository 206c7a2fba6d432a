"""Quantized weights inside a module that somebody else trains: parametrizations (`torch.nn.utils.parametrize`) in the place of weights.

The forward pass sees what would be stored, rounded; gradients reach the scales and, straight through the rounding, the positions of the
codes, by the same arithmetic as in `trainable.py`. All numbers that move begin at zero, so that weight decay draws them back to where
they began, and all move at their usual rates under an Adam whose rate is that of scales, 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.models.running.fake_quantized import as_parameter
from mpq.records.layer import Layer
from mpq.recovery.trainable import CODE_RATE, SCALE_RATE, Codes
from mpq.tensors.common_rows import merged
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.tuned import TunedWeight

_FASTER = CODE_RATE / SCALE_RATE


class TrainedWeight(nn.Module):
    """The weight of a layer under a scheme with fp16 scales, from the numbers behind its scales and codes.

    Args:
        weight: to begin with.
        layer: whose it is.
        original: the unquantized parameter.
        codes: whose codes move.
    """

    def __init__(self, weight: QuantizedWeight, layer: Layer, original: Tensor, codes: Codes) -> None:
        super().__init__()
        matrix = None if codes == "none" else to_matrix(original.detach(), layer.axes, layer.groups)
        self._tuned, self._layer = TunedWeight(weight, matrix, tables=codes == "all"), layer
        self._begun = False

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The numbers that move, at their beginning; asked once, when the parametrization is put in place.

        Raises:
            ModelError: if the weight is assigned later.
        """
        if self._begun:
            raise ModelError(f"the weight of '{self._layer.name}' is being trained as quantized and cannot be assigned: convert first")
        self._begun = True
        positions = self._tuned.positions
        moving = (self._tuned.change,) if positions is None else (self._tuned.change, positions)
        return tuple(torch.zeros_like(tensor) for tensor in moving)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainedWeight:
        """Follow the module to another device, but not to another dtype."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._tuned.to(fn(torch.empty(0)).device)
        return self

    def forward(self, change: Tensor, moved: Tensor | None = None) -> Tensor:
        """The parameter of the layer, rounded."""
        return _Rounding.apply(self, change, moved)  # type: ignore[no-any-return,no-untyped-call]

    def quantized(self, change: Tensor, moved: Tensor | None = None) -> QuantizedWeight:
        """The weight as it would be stored now."""
        start = self._tuned.positions
        return self._tuned.rounded(change.detach().float(), None if start is None or moved is None else start + _FASTER * moved.detach())

    def parameter(self, weight: QuantizedWeight) -> Tensor:
        """A weight in the shape and dtype of the layer's parameter."""
        return as_parameter(weight, self._layer)

    def gradients(self, gradient: Tensor, now: QuantizedWeight) -> tuple[Tensor, Tensor | None]:
        """The gradients by the numbers that move, from that by the parameter, which is not changed."""
        own = to_matrix(gradient, self._layer.axes, self._layer.groups)
        change, moved = self._tuned.gradients(own.clone(), now)
        return change, None if moved is None else moved.mul_(_FASTER)


class RoundedWeight(nn.Module):
    """The weight of a layer under a floating-point scheme: rounded to it in the forward pass, gradients pass straight through.

    Args:
        weight: under the scheme.
        layer: whose it is.
    """

    def __init__(self, weight: QuantizedWeight, layer: Layer) -> None:
        super().__init__()
        self._scheme, self._layer, self._common = weight.scheme, layer, weight.common

    def forward(self, weight: Tensor) -> Tensor:
        """The parameter of the layer, rounded."""
        return weight + (as_parameter(self.quantized(weight), self._layer) - weight).detach()

    def quantized(self, weight: Tensor) -> QuantizedWeight:
        """The weight as it would be stored now."""
        matrix = to_matrix(weight.detach(), self._layer.axes, self._layer.groups)
        if self._common is None:
            return quantizer_named("rtn").quantize(matrix, self._scheme, None)
        return quantizer_named("rtn").quantize(merged(matrix, self._common), self._scheme, None).shared(self._common)


class _Rounding(torch.autograd.Function):
    """Rounds forward, and turns gradients by the rounded weight into gradients by the numbers behind it."""

    @staticmethod
    def forward(ctx: Any, owner: TrainedWeight, change: Tensor, moved: Tensor | None) -> Tensor:
        ctx.owner, ctx.now = owner, owner.quantized(change, moved)
        return owner.parameter(ctx.now)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.owner.gradients(gradients[0], ctx.now)
