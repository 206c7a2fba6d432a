"""The peak memory of writing an artifact whose model stays in files, before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from mpq.data.dataset import Data
from mpq.gradients.saved_bytes import saved_bytes
from mpq.models.memory.peak import held_now
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.recovery.blocks import blocks_of
from mpq.recovery.walk import LIMIT_BYTES

_LARGEST = 4  # times the largest layer in float32, while it is quantized
_MOMENTS = 64  # bytes for each square of a row's length, while a layer is fitted to its inputs
_TRAINED = 32  # bytes for each weight of a block that is trained: its value, codes, gradient and the optimizer's state
_COPIES = 3  # of a batch's outputs in float32
_WALKS = 4  # outputs of one block that two walks hold: of both models, each with what comes next


def expected_memory(model: LoadedModel, layers: Sequence[Layer], data: Data, *, recovery: bool) -> int:
    """Bytes at the peak; 0 for a model in memory, whose peak is not limited.

    Args:
        model: the model.
        layers: the quantized layers.
        data: calibration samples.
        recovery: whether steps of recovery run.
    """
    if model.offload is None:
        return 0
    batch = max(data.batches, key=lambda each: each.size)
    sample = batch if data.fixed_batch else batch.select([0])
    times = batch.size / sample.size
    blocks = blocks_of(model.module, list(layers), sample) if recovery else []
    saved = saved_bytes(model.module, sample, [block.module for block in blocks])
    passes = times * (saved.recomputed * bool(blocks) + 4 * _COPIES * saved.outputs)
    widest, largest = max(layer.matrix[1] for layer in layers), max(layer.weights for layer in layers)
    trained = max((sum(layer.weights for layer in block.layers) for block in blocks), default=0)
    walked = _WALKS * min(LIMIT_BYTES, saved.inputs // len(blocks) * data.samples // sample.size) if blocks else 0
    files = sum(3 * layer.original_bytes + layer.weights for layer in layers)  # the weights, their values in two states, and codes
    limited = max(0, min(model.offload.limit, files) - model.offload.held)
    return round(held_now() + limited + passes + _MOMENTS * widest**2 + _TRAINED * trained + walked + _LARGEST * 4 * largest)
