"""A quantized model with trainable scales, codes and vectors, and its optimizer; their rounded values are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mpq.activations.learned import LearnedRanges
from mpq.models.layers.state_tensors import aliases_of, state_of
from mpq.models.running.fake_quantized import as_parameters
from mpq.models.running.swap import tensor_of
from mpq.records.activations import Groups
from mpq.records.layer import Layer
from mpq.recovery.base import State
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.tuned import TunedWeight

Codes = Literal["none", "integers", "all"]
"""Whose codes move: nobody's, those of integer formats, or those of formats with a table of levels, too."""
MOST_CODES = 1 << 28  # weights whose codes move; beyond, the optimizer's state takes too much memory
SCALE_RATE = 1e-3  # a step, as a share of each scale
CODE_RATE = 0.005  # a step, in codes
_VECTOR_RATE = 1e-3  # a step, as a share of the vector's root mean square
_ZERO_VECTOR = 1e-2  # used instead of the norm of a zero vector


class Trainable:
    """All that moves, with Adam.

    Args:
        module: the unquantized model.
        layers: the quantized layers.
        state: to begin with.
        codes: whose codes move.
        vectors: those that move, by name in the state dict; None moves all that no scheme changes.
        activations: tensors between layers that the artifact rounds; their ranges move, too.

    Attributes:
        wanted: names in the state dict whose gradients are wanted.
        codes: whether any codes move; they do not where there are too many.
        ranges: of tensors between layers.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Iterable[Layer],
        state: State,
        *,
        codes: Codes = "integers",
        vectors: Mapping[str, Tensor] | None = None,
        activations: Groups | None = None,
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._fixed = dict(state.tensors)
        scaled = scaled_weights(state.weights)
        self._fixed |= as_parameters({name: w for name, w in state.weights.items() if name not in scaled}, self._layers.values())
        self.codes = may_move(scaled, codes)
        self._weights = {name: TunedWeight(weight, self._original(module, name), tables=codes == "all") for name, weight in scaled.items()}
        moving = vectors_of(module, self._layers.values()) if vectors is None else vectors
        self._first = {name: state.tensors.get(name, value).detach() for name, value in moving.items()}
        self._vectors = {name: value.float().clone() for name, value in self._first.items()}
        self._now = dict(scaled)
        self.ranges = LearnedRanges(state.ranges or activations or {})
        self.wanted = [*(self._parameter(name) for name in scaled), *self._vectors]
        groups = [{"params": [weight.change], "lr": SCALE_RATE} for weight in self._weights.values()]
        groups += [{"params": [w.positions], "lr": CODE_RATE} for w in self._weights.values() if w.positions is not None]
        groups += [{"params": [value], "lr": _VECTOR_RATE * _size(value)} for value in self._vectors.values()]
        groups += [{"params": [self.ranges.change], "lr": SCALE_RATE}] if self.ranges.change.numel() else []
        self._rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12) if groups else None

    def values(self) -> dict[str, Tensor]:
        """All values that differ from the unquantized model's, by name in the state dict."""
        return self._fixed | as_parameters(self._now, self._layers.values()) | self._rounded()

    def snapshot(self) -> tuple[dict[str, QuantizedWeight], dict[str, Tensor]]:
        """Weights and vectors as they would be stored now."""
        return dict(self._now), self._rounded()

    def step(self, gradients: Mapping[str, Tensor], share: float, *, codes: float | None = None) -> None:
        """One step of Adam at this share of its rates.

        Args:
            gradients: by name in the state dict.
            share: of the rates.
            codes: of the rates of codes, where it is another.
        """
        for name, weight in self._weights.items():
            gradient = gradients.get(self._parameter(name))
            if gradient is not None:
                weight.take(self._matrix(gradient, name), self._now[name])
        for name, value in self._vectors.items():
            gradient = gradients.get(name)
            value.grad = None if gradient is None else gradient.float()
        self.ranges.take()
        if self._adam is None:
            return
        places = {id(weight.positions) for weight in self._weights.values()}
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * (codes if codes is not None and id(group["params"][0]) in places else share)
        self._adam.step()
        self._adam.zero_grad()
        self._round()

    def tensors(self) -> dict[str, Tensor]:
        """All that a later `restore` needs to go on from here, the optimizer's state included; the tensors are copies."""
        found = {f"parameter.{number}": tensor for number, tensor in enumerate(self._parameters())}
        if self._adam is not None:
            for number, tensor in enumerate(self._parameters()):
                found |= {f"adam.{number}.{key}": value for key, value in self._adam.state[tensor].items()}
        return {name: tensor.detach().clone() for name, tensor in found.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave, of a model with the same layers.

        Raises:
            KeyError: if a tensor is missing.
        """
        with torch.no_grad():
            for number, tensor in enumerate(self._parameters()):
                tensor.copy_(tensors[f"parameter.{number}"])
                start = f"adam.{number}."
                state = {name.removeprefix(start): value.clone() for name, value in tensors.items() if name.startswith(start)}
                if self._adam is not None:
                    self._adam.state.pop(tensor, None)
                    if state:
                        self._adam.state[tensor] = state
        self._round()

    def _parameters(self) -> list[Tensor]:
        return [] if self._adam is None else [tensor for group in self._adam.param_groups for tensor in group["params"]]

    def _round(self) -> None:
        self._now = {name: weight.quantized() for name, weight in self._weights.items()}
        self.ranges.round()

    def _rounded(self) -> dict[str, Tensor]:
        return {name: value.to(self._first[name].dtype) for name, value in self._vectors.items()}

    def _parameter(self, layer: str) -> str:
        return self._layers[layer].parameters[0]

    def _original(self, module: nn.Module, layer: str) -> Tensor | None:
        return self._matrix(tensor_of(module, self._parameter(layer)).detach(), layer) if self.codes else None

    def _matrix(self, tensor: Tensor, layer: str) -> Tensor:
        return to_matrix(tensor, self._layers[layer].axes, self._layers[layer].groups)


def scaled_weights(weights: Mapping[str, QuantizedWeight]) -> dict[str, QuantizedWeight]:
    """Those with fp16 scales, which alone are trained."""
    return {name: weight for name, weight in weights.items() if weight.scales is not None and weight.scales.dtype == torch.float16}


def may_move(scaled: Mapping[str, QuantizedWeight], codes: Codes) -> bool:
    """Whether codes of these weights are trained; too many of them take too much memory."""
    return codes != "none" and sum(weight.codes.numel() for weight in scaled.values()) <= MOST_CODES


def vectors_of(module: nn.Module, layers: Iterable[Layer]) -> dict[str, Tensor]:
    """The floating-point parameters of at most one dimension that no scheme changes, by canonical name."""
    state = state_of(module)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    left_out = {name for layer in layers for name in layer.parameters} | set(aliases_of(state))
    return {
        name: tensor
        for name, tensor in state.items()
        if name in parameters and name not in left_out and tensor.dim() < 2 and tensor.is_floating_point() and tensor.numel()
    }


def _size(vector: Tensor) -> float:
    return float(vector.square().mean().sqrt()) or _ZERO_VECTOR
