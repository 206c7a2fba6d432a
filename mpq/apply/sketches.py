"""Sketches of the calibration data in an artifact: what `mpq monitor` compares the running model with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mpq.activations.rounding import simulated
from mpq.calibration.baseline import sketched
from mpq.data.dataset import Data
from mpq.models.running.swap import swapped
from mpq.records.baseline import input_name, stored_sketches
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.stored_sketches import StoredSketches

SAMPLES = 512
"""Calibration samples that are sketched, at most."""


def sketches_for(plan: Plan, module: nn.Module, layers: Sequence[Layer], values: Mapping[str, Tensor], data: Data) -> StoredSketches | None:
    """The sketches that a plan wants; None if it wants none.

    Args:
        plan: says which layers are watched.
        module: the unquantized model; unchanged afterwards.
        layers: of the plan.
        values: all that differs in the quantized model, by name in the state dict.
        data: calibration samples; they go through the quantized model one by one, up to 512.

    Raises:
        UsageError: if there is only one sample.
    """
    if plan.sketches is None:
        return None
    by_name = {layer.name: layer for layer in layers}
    watched = [by_name[name] for name in plan.sketches]
    names = [] if isinstance(module, torch.jit.ScriptModule) else [input_name(layer).removesuffix(".input") for layer in watched]
    single = data.rebatch(data.fixed_batch or 1)
    with swapped(module, values), simulated(module, plan.activations):
        baseline = sketched(module, single.batches[:SAMPLES], names)
    return stored_sketches(baseline, watched)


def without_sketches(plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The plan for an artifact that is written without data, and what to say about it."""
    if plan.sketches is None:
        return plan, ()
    bare = replace(plan, sketches=None)
    left = plan.size.file_bytes - bare.size.file_bytes
    return bare, (
        f"no sketches, which need data: {left:,} bytes fewer than the plan predicts; `mpq monitor baseline` writes them to a file",
    )
