"""Gradients of a model's error with respect to its own tensors, for every kind of model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.gradients.recomputation import without_recomputation
from mpq.models.running.forward import forward
from mpq.models.running.reference import Reference
from mpq.models.running.swap import swapped, tensor_of
from mpq.shown import first_line


@contextmanager
def differentiable(module: nn.Module, wanted: Iterable[Tensor]) -> Iterator[None]:
    """Inside the `with`, only the `wanted` tensors of `module` require gradients; flags and gradients are restored afterwards."""
    asked = list(wanted)
    tensors = [*module.parameters(), *asked]
    before = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors]
    chosen = {id(tensor) for tensor in asked}
    try:
        for tensor in tensors:
            tensor.requires_grad_(id(tensor) in chosen)
            tensor.grad = None
        with without_recomputation():
            yield
    finally:
        for tensor, flag, gradient in before:
            tensor.requires_grad_(flag)
            tensor.grad = gradient


def error_gradients(
    reference: Reference,
    index: int,
    values: Mapping[str, Tensor],
    wanted: Collection[str],
    *,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[float, dict[str, Tensor]]:
    """The mean error of one batch with `values` in place, and its gradient with respect to each tensor of `wanted` that it depends on.

    Args:
        reference: the model, the batches and the metric; its module is unchanged afterwards.
        index: of the batch.
        values: by name in the state dict.
        wanted: names in the state dict, of different tensors.
        around: entered around the forward pass.

    Raises:
        ModelError: if no gradient flows through the model, or the metric has none.
    """
    module, prepared = reference.module, reference.prepared(index)

    def error() -> Tensor:
        with around():
            outputs = forward(module, reference.data.batches[index], gradients=True)
        return reference.metric.errors(prepared, outputs).mean()

    return loss_gradients(module, values, wanted, error, path=f"from {reference.metric.name} to the weights")


def loss_gradients(
    module: nn.Module,
    values: Mapping[str, Tensor],
    wanted: Collection[str],
    loss: Callable[[], Tensor],
    *,
    path: str,
    part: nn.Module | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """A loss with `values` in place, and its gradient with respect to each tensor of `wanted` that it depends on.

    Args:
        module: the model, which is unchanged afterwards.
        values: by name in the state dict.
        wanted: names in the state dict, of different tensors.
        loss: gives the loss, a scalar.
        path: what the gradient flows through, for messages.
        part: of the model, if the loss depends on no other; None for all of it.

    Raises:
        ModelError: if no gradient flows.
    """
    tensors = {name: tensor_of(module, name) for name in wanted}
    with swapped(module, values), differentiable(module if part is None else part, tensors.values()):
        try:
            with torch.enable_grad():
                found = loss()
                found.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as problem:
            raise ModelError(f"no gradient flows {path} ({first_line(problem)})") from problem
        return found.item(), {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
