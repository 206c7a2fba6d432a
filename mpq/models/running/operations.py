"""The number of floating-point operations of a model call, as counted by torch: the same on every machine."""

from __future__ import annotations

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mpq.data.batch import Batch
from mpq.models.running.forward import forward


def operations(module: nn.Module, batch: Batch) -> float:
    """Operations of one forward pass over `batch`; a multiply-add counts as two. Lookups and fused kernels count as none."""
    with FlopCounterMode(display=False) as counter:
        forward(module, batch)
    return float(counter.get_total_flops())
