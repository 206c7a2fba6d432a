"""How much the error at the model's output depends on the outputs of its blocks: second moments of gradients.

To second order, a change d of a block's output at one position adds d' E[g g'] d to the error, where g is the gradient of a random
projection of the model's outputs (`gradients/projections.py`), as the diagonal of E[g g'] does in BRECQ (Li et al. 2021, arXiv 2102.05426).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch, Data
from mpq.gradients.error_gradients import differentiable
from mpq.gradients.recomputation import recomputed
from mpq.models.memory.offload import is_mapped
from mpq.models.running.forward import forward
from mpq.models.running.metrics import Metric
from mpq.models.running.positions import expanded
from mpq.models.running.swap import hooked, tensor_of
from mpq.recovery.blocks import Block, main_tensor

MOST_CHANNELS = 4096  # with more, all channels count equally
_SHRINKAGE = 1e-3  # toward equal weights, as a share of the mean of the diagonal


def output_weights(module: nn.Module, blocks: Sequence[Block], data: Data, metric: Metric, *, seed: int) -> list[Tensor | None]:
    """E[g g'] of each block, float32 [channels, channels] with a mean of one on the diagonal; None where no gradient says anything.

    Args:
        module: the unquantized model, which is unchanged afterwards.
        blocks: of the model.
        data: samples; one backward pass for each batch.
        metric: of errors. One without a projection gives None for all.
        seed: of the projections.

    Raises:
        NumericsError: if the outputs are not finite.
    """
    sums: list[Tensor | None] = [None] * len(blocks)
    generator = torch.Generator().manual_seed(seed)
    parameters = [tensor_of(module, layer.parameters[0]) for block in blocks for layer in block.layers]
    again = [block.module for block in blocks] if any(map(is_mapped, parameters)) else []  # a block that runs again tells what it uses
    for batch in data.batches if metric.has_projection else ():
        handles = [block.module.register_forward_hook(_adder(sums, number, block, batch)) for number, block in enumerate(blocks)]
        with hooked(handles), differentiable(module, parameters), _not_kept(parameters), torch.enable_grad(), recomputed(again):
            outputs = forward(module, batch, gradients=True)
            scalar = metric.project(metric.prepare(outputs.detached(), batch.mask), outputs, generator)
            if scalar.requires_grad:
                scalar.backward()  # type: ignore[no-untyped-call]
    return [None if total is None else _normalized(total) for total in sums]


def _not_kept(parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
    """Inside the `with`, gradients of the weights themselves are dropped as soon as there is one."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    leaves = {id(each): each for each in parameters if each.is_leaf}
    return hooked([each.register_post_accumulate_grad_hook(drop) for each in leaves.values()])  # type: ignore[no-untyped-call]


def by_channel(values: Tensor, block: Block, batch: Batch) -> Tensor:
    """The values of a block's output at positions that count, [positions, channels]."""
    wide = None if batch.mask is None else expanded(batch.mask, values)
    if wide is not None:
        values = torch.where(wide, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return values.movedim(block.channels, -1).reshape(-1, values.shape[block.channels]).float()


def _adder(sums: list[Tensor | None], number: int, block: Block, batch: Batch) -> Any:
    def add(gradient: Tensor) -> None:
        rows = by_channel(gradient.detach(), block, batch)
        if rows.shape[1] <= MOST_CHANNELS:
            total, found = sums[number], rows.mT @ rows
            sums[number] = found if total is None else total.add_(found)

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        tensor = main_tensor(output)
        if tensor.requires_grad:
            tensor.register_hook(add)  # type: ignore[no-untyped-call]

    return watch


def _normalized(total: Tensor) -> Tensor | None:
    mean = total.diagonal().mean()
    if not bool(torch.isfinite(mean)) or not mean > 0:
        return None
    return (total / mean + _SHRINKAGE * torch.eye(len(total), device=total.device)) / (1 + _SHRINKAGE)
