"""Detects operations that block gradients: the effect of the layers before them does not show in a backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mpq.data.dataset import Batch
from mpq.gradients.error_gradients import differentiable
from mpq.models.running.forward import forward
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer

_TO_NUMBERS = {"numpy", "item", "tolist", "__array__", "__float__"}
_STEPS = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside"}  # whose gradient is zero, but whose effect is not


def cut_paths(module: nn.Module, layers: Sequence[Layer], batch: Batch) -> tuple[str, ...]:
    """Names of operations in one forward pass that block or distort the gradient of a layer's weight.

    That is code under `no_grad`, ops with integer or step outputs, conversions out of torch, and custom gradients
    (`torch.autograd.Function`). An empty result proves nothing: compiled code is not inspected.

    Args:
        module: the unquantized model.
        layers: whose weights count.
        batch: some samples.
    """
    watch = _Watch()
    weights = [tensor_of(module, layer.parameters[0]) for layer in layers]
    with differentiable(module, weights), watch:
        outputs = forward(module, batch, gradients=True)
    return tuple(dict.fromkeys([*watch.found, *_own_gradients(outputs)]))


class _Watch(TorchFunctionMode):
    """Collects the names of operations that take a tensor with a gradient and give one without."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(tensor.requires_grad for tensor in _tensors((args, kwargs))):
            name = getattr(func, "__name__", "").partition(".")[0].rstrip("_") or "an operation"
            if not torch.is_grad_enabled() and _tensors(result):
                self.found["no_grad"] = None
            elif name in _TO_NUMBERS or name in _STEPS or _cuts(name, result):
                self.found["data" if name == "__get" else name] = None
        return result


def _cuts(name: str, result: Any) -> bool:
    """Whether an operation's result depends on its inputs, but has no gradient."""
    from_shape = name.endswith("_like") or name.startswith("new_")
    return not from_shape and any(not tensor.requires_grad for tensor in _tensors(result))


def _own_gradients(outputs: Sequence[Tensor]) -> Iterator[str]:
    """Names of the autograd functions written in Python that outputs depend on."""
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            yield type(node).__name__.removesuffix("Backward")
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
