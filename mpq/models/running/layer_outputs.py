"""The output of each layer when a model is called: the first result of an operator that uses the layer's weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LayerOutputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the `with`, records the root mean square and the largest magnitude of each layer's first output.

    Reshaping does not change these two numbers, so they can be compared with those of another program.

    Args:
        weights: by layer name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers = {_place(weight): name for name, weight in weights.items()}
        self._kept: list[Tensor] = []  # otherwise their memory could be reused
        self.found: dict[str, tuple[float, float]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator."""
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = next((self._layers[_place(tensor)] for tensor in tensors if _place(tensor) in self._layers), None)
        first = next((leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
        if name is None or first is None or _place(first) in self._layers:
            return result
        if len(tensors) == 1:  # the weight itself, reshaped or converted
            self._layers[_place(first)] = name
            self._kept.append(first)
        else:
            self.found.setdefault(name, magnitude(first))
        return result


def magnitude(tensor: Tensor) -> tuple[float, float]:
    """Root mean square and largest magnitude of the finite values."""
    values = tensor.detach().double()
    values = values[values.isfinite()]
    if not values.numel():
        return 0.0, 0.0
    return float(values.square().mean().sqrt()), float(values.abs().max())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
