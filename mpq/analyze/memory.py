"""The peak memory of an analysis, before it begins: what is held already, one batch, and what is kept up to a limit.

The sum counts what is alive together in the step that needs most. Allocators and kernels take some more; how much was measured is in
`benchmarks/log.md`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mpq.analyze.task import Prepared
from mpq.calibration.input_moments import LIMIT_BYTES
from mpq.calibration.memory_parts import moment_bytes, too_wide
from mpq.data.batch import Batch
from mpq.gradients import weight_changes
from mpq.models.memory.store import MEMORY_BYTES
from mpq.models.running import fake_quantized, reference
from mpq.models.running.forward import forward
from mpq.models.sources.loaded import LoadedModel

_COPIES = 8  # of a batch's outputs that the metric and its random projection hold at once
_LARGEST = 4  # times the largest layer in float32, while it is quantized


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


def expected_memory(model: LoadedModel, prepared: Prepared, *, gradients: bool, statistics: bool) -> Expected:
    """What an analysis is expected to take, found by one forward pass of the largest batch.

    Args:
        model: the model.
        prepared: the settled analysis.
        gradients: whether its method runs backward passes.
        statistics: whether its quantizer needs statistics of the inputs.
    """
    data, layers = prepared.calibration, prepared.header.layers
    batch = max(data.batches, key=lambda each: each.size)
    saved, outputs = _forward_bytes(model, batch, gradients=gradients)
    schemes = prepared.header.candidates
    weights = [layer.weights * len(schemes[layer.name]) for layer in layers]
    codes = sum(scheme.stored_bits(layer.matrix) // 8 for layer in layers for scheme in schemes[layer.name])
    kept = min(MEMORY_BYTES, codes) + min(fake_quantized.CACHE_BYTES, 4 * sum(weights))
    kept += min(weight_changes.CACHE_BYTES, 2 * sum(weights)) if gradients else 0
    moments = [0, *(moment_bytes(layer) for layer in layers if statistics and not too_wide(layer))]
    largest = max(layer.weights for layer in layers)
    return Expected(
        held=held_now(),
        batch=saved + _COPIES * outputs,
        outputs=min(reference.CACHE_BYTES, outputs * data.samples // batch.size),
        kept=kept + max(max(moments), min(LIMIT_BYTES, sum(moments))) * 3 // 2,
        layer=4 * largest * _LARGEST,
    )


def held_now() -> int:
    """Bytes that this process has in memory; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _forward_bytes(model: LoadedModel, batch: Batch, *, gradients: bool) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass, and those of its outputs."""
    seen: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.module.parameters(), *model.module.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided:  # sparse tensors have no single storage, and come from the data
            return tensor
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = [tensor for tensor in model.module.parameters() if tensor.is_floating_point()]
    flags = [tensor.requires_grad for tensor in weights]
    try:
        for tensor in weights if gradients else ():
            tensor.requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = forward(model.module, batch, gradients=gradients)
    finally:
        for tensor, flag in zip(weights, flags, strict=True):
            tensor.requires_grad_(flag)
    return sum(seen.values()), 4 * _values(outputs)


def _values(outputs: Sequence[Tensor]) -> int:
    return sum(output.numel() for output in outputs)
