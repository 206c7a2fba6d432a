"""The peak memory of an analysis, before it begins: what is held already, one batch, and what is kept up to a limit.

The sum counts what is alive together in the step that needs most: quantizing, backward passes, or measuring. Allocators and kernels take
some more; how much was measured is in `benchmarks/log.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mpq.analyze.task import Prepared
from mpq.calibration.input_moments import LIMIT_BYTES
from mpq.calibration.memory_parts import moment_bytes, too_wide
from mpq.gradients import weight_changes
from mpq.gradients.saved_bytes import saved_bytes
from mpq.models.memory.peak import held_now
from mpq.models.memory.store import MEMORY_BYTES
from mpq.models.running import fake_quantized, reference
from mpq.models.running.forward import forward
from mpq.models.sources.loaded import LoadedModel
from mpq.recovery.blocks import blocks_of

RECOMPUTE_BYTES = 1 << 30
"""Kept for the backward pass of a batch; beyond it, blocks run again in the backward pass."""
_COPIES = 3  # of a batch's outputs in float32 that the metric and its random projection hold at once
_LARGEST = 4  # times the largest layer in float32, while it is quantized


@dataclass(frozen=True)
class Activations:
    """What one pass over the largest batch holds.

    Args:
        saved: bytes for the backward pass.
        outputs: bytes of the outputs in float32.
        blocks: modules that run again in the backward pass.
    """

    saved: int
    outputs: int
    blocks: tuple[nn.Module, ...] = ()


def activations_of(model: LoadedModel, prepared: Prepared, *, gradients: bool) -> Activations:
    """What the passes of an analysis will hold, from passes of one sample; `gradients`: whether there are backward passes."""
    data, module = prepared.calibration, model.module
    batch = max(data.batches, key=lambda each: each.size)
    sample = batch if data.fixed_batch else batch.select([0])
    times = batch.size / sample.size
    if not gradients:
        return Activations(0, round(4 * times * sum(output.numel() for output in forward(module, sample))))
    whole = saved_bytes(module, sample) if model.offload is None else None
    if whole is not None and times * whole.whole <= RECOMPUTE_BYTES:
        return Activations(round(times * whole.whole), round(4 * times * whole.outputs))
    blocks = tuple(block.module for block in blocks_of(module, prepared.header.layers, sample))
    parts = saved_bytes(module, sample, blocks)
    outputs = round(4 * times * parts.outputs)
    if whole is not None and parts.recomputed >= whole.whole:
        return Activations(round(times * whole.whole), outputs)
    return Activations(round(times * parts.recomputed), outputs, blocks)  # offloaded, a block that runs again tells which weights are used


@dataclass(frozen=True)
class Expected:
    """Bytes by what they are for.

    Args:
        held: by Python, torch, the model and the data now.
        batch: activations and outputs of the largest batch.
        outputs: of the reference, on all samples.
        kept: statistics, codes, weights and changes.
        layer: the largest layer, while it is quantized.
    """

    held: int
    batch: int
    outputs: int
    kept: int
    layer: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.held + self.batch + self.outputs + self.kept + self.layer

    @property
    def line(self) -> str:
        """For people."""
        parts = ("held", "held now"), ("batch", "one batch"), ("outputs", "the reference's outputs"), ("kept", "statistics and codes")
        named = ", ".join(f"{words} {getattr(self, name) / 1e9:.1f}" for name, words in (*parts, ("layer", "the largest layer")))
        return f"memory: about {self.total / 1e9:.1f} GB expected at most ({named})"


def expected_memory(model: LoadedModel, prepared: Prepared, activations: Activations, *, gradients: bool, statistics: bool) -> Expected:
    """What an analysis is expected to take.

    Args:
        model: the model.
        prepared: the settled analysis.
        activations: what its passes hold.
        gradients: whether its method runs backward passes.
        statistics: whether its quantizer needs statistics of the inputs.
    """
    data, layers = prepared.calibration, prepared.header.layers
    batch = max(data.batches, key=lambda each: each.size)
    schemes, largest = prepared.header.candidates, 4 * max(layer.weights for layer in layers)
    weights = [layer.weights * len(schemes[layer.name]) for layer in layers]
    moments = [0, *(moment_bytes(layer) for layer in layers if statistics and not too_wide(layer))]
    codes = min(MEMORY_BYTES, sum(scheme.stored_bits(layer.matrix) // 8 for layer in layers for scheme in schemes[layer.name]))
    changes = min(weight_changes.CACHE_BYTES, 2 * sum(weights)) if gradients else 0
    outputs = min(reference.CACHE_BYTES, activations.outputs * data.samples // batch.size)
    plan = sum(layer.original_bytes for layer in layers)  # the model's own weights, while those of a plan are in place
    measured = min(fake_quantized.CACHE_BYTES, 4 * sum(weights))
    if model.offload is not None:  # all that stays in files is under one limit
        held = max(0, min(model.offload.limit, plan + 4 * sum(weights) + outputs) - model.offload.held)
        codes, outputs, plan, measured, changes = held, 0, 0, 0, min(changes, model.offload.limit)
    collected = max(max(moments), min(statistics_limit(model), sum(moments))) * 3 // 2
    now, passed = held_now(), _COPIES * activations.outputs
    steps = (
        Expected(held=now, batch=0, outputs=0, kept=codes + collected, layer=_LARGEST * largest),
        Expected(held=now, batch=activations.saved + passed, outputs=0, kept=codes + changes, layer=_LARGEST * largest if gradients else 0),
        Expected(held=now, batch=passed, outputs=outputs, kept=codes + plan + measured, layer=largest),
    )
    return max(steps, key=lambda step: step.total)


def statistics_limit(model: LoadedModel) -> int:
    """Bytes of statistics that are collected at once."""
    return LIMIT_BYTES if model.offload is None else min(LIMIT_BYTES, model.offload.limit)
