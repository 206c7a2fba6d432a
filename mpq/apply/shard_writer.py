"""Writes one file of an artifact from one file of a checkpoint, a few rows at a time, without the model in memory.

Quantizers that need no statistics quantize each row of a matrix independently, and 40 rows of codes end at a whole byte. So pieces of a few
megabytes are processed on all cores, and each is written to its predicted offset. Each file is written atomically.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from mpq.apply.shard_plan import Shard, stored_dtype
from mpq.data.hashing import tensor_bytes
from mpq.errors import ApplyError
from mpq.files import atomic_write
from mpq.formats.scheme import Scheme
from mpq.formats.stored import COMMON_ROWS
from mpq.models.sources.checkpoint_files import StoredTensor, read_into
from mpq.records.layer import Layer
from mpq.tensors.common_rows import common_rows, merged, to_bits
from mpq.tensors.dtypes import TORCH_DTYPES
from mpq.tensors.kernels.stored import row_step
from mpq.tensors.matrix import to_matrix
from mpq.tensors.narrow import narrowed
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.base import Quantizer

_WEIGHTS = 1 << 20  # weights quantized at a time by one core
_COPIED = 1 << 23  # bytes copied at a time
Step = Callable[[], None]


def write_shard(shard: Shard, quantizer: Quantizer, pool: ThreadPoolExecutor) -> None:
    """Write one file, in the threads of `pool`.

    Raises:
        OutputError: if it cannot be written.
    """
    with shard.source.open("rb") as reading, atomic_write(shard.output) as file:
        file.write(shard.first)
        file.truncate(shard.bytes)
        file.flush()
        source, target = reading.fileno(), file.fileno()
        jobs: list[Step] = []
        for tensor in shard.tensors:
            layer = shard.layers.get(tensor.name)
            if layer is None:
                jobs += _copies(tensor, shard.header.rest_dtype, source, target, shard.places[tensor.name])
            else:
                jobs += _pieces(tensor, layer, shard, quantizer, source, target)
        for _ in pool.map(lambda job: job(), jobs):
            pass


def _copies(tensor: StoredTensor, dtype: str | None, source: int, target: int, place: int) -> Iterator[Step]:
    if stored_dtype(tensor, dtype) != tensor.dtype:
        for first in range(0, math.prod(tensor.shape), _COPIED // 8):
            yield partial(_narrow, tensor, dtype, source, target, place, first)
        return
    for first in range(0, tensor.bytes, _COPIED):
        yield partial(_copy, source, target, tensor.start + first, place + first, min(_COPIED, tensor.bytes - first))


def _copy(source: int, target: int, start: int, place: int, size: int) -> None:
    _put(target, os.pread(source, size, start), place)


def _narrow(tensor: StoredTensor, dtype: str | None, source: int, target: int, place: int, first: int) -> None:
    """Store some values of an unquantized tensor, from `first` on, in a smaller dtype."""
    own = TORCH_DTYPES[tensor.dtype]
    values = torch.empty(min(_COPIED // 8, math.prod(tensor.shape) - first), dtype=own)
    read_into(source, values, tensor.start + first * own.itemsize)
    stored = narrowed(values, dtype, tensor.name)
    _put(target, tensor_bytes(stored), place + first * stored.element_size())


def _pieces(tensor: StoredTensor, layer: Layer, shard: Shard, quantizer: Quantizer, source: int, target: int) -> Iterator[Step]:
    rows, columns = layer.matrix
    scheme = shard.header.schemes[layer.name]
    places = {part.part: shard.places[f"{layer.name}.{part.part}"] for part in scheme.stored(layer.matrix)}
    step = row_step(scheme)
    size = rows if scheme.is_coded else max(step, _WEIGHTS // columns // step * step)  # a coded layer has one step
    if layer.alike or layer.axes != (0,) or layer.groups > 1:
        yield partial(_quantize_whole, tensor, layer, scheme, quantizer, source, target, places, size)
        return
    for first in range(0, rows, size):
        yield partial(_quantize_rows, tensor, scheme, quantizer, source, target, places, first, min(size, rows - first))


def _quantize_whole(
    tensor: StoredTensor, layer: Layer, scheme: Scheme, quantizer: Quantizer, source: int, target: int, places: dict[str, int], size: int
) -> None:
    """A tensor whose output rows are not contiguous, or partly alike, is kept in memory as a whole."""
    matrix = to_matrix(tensor.rows(source, 0, tensor.shape[0]), layer.axes, layer.groups)
    if layer.alike:
        common = common_rows(matrix)
        if common is None or int(common.sum()) != layer.alike:
            raise ApplyError(f"'{layer.name}' has not the {layer.alike:,} rows alike that the plan says: analyze the model again")
        _put(target, tensor_bytes(to_bits(common)), places[COMMON_ROWS])
        matrix = merged(matrix, common)
    for first in range(0, len(matrix), size):
        _store(matrix[first : first + size], scheme, quantizer, target, places, first)


def _quantize_rows(
    tensor: StoredTensor, scheme: Scheme, quantizer: Quantizer, source: int, target: int, places: dict[str, int], first: int, count: int
) -> None:
    _store(tensor.rows(source, first, count).reshape(count, -1).float(), scheme, quantizer, target, places, first)


def _store(matrix: Tensor, scheme: Scheme, quantizer: Quantizer, target: int, places: dict[str, int], first: int) -> None:
    """Quantize rows of a layer from `first` on, which fill a whole number of bytes, and write them to their offsets."""
    rows, columns = matrix.shape
    weight = quantizer.quantize(matrix, scheme)
    parts = weight.pack()
    if first == 0 and not torch.equal(unpack_weight(parts, scheme, (rows, columns)).dequantize(), weight.dequantize()):
        raise ApplyError(f"a layer at {scheme} does not read back as it was packed: this is a bug in mpq, please report it")
    for before in scheme.stored((first, columns)):
        _put(target, tensor_bytes(parts[before.part]), places[before.part] + before.bytes)


def _put(target: int, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(target, view, place)
        view, place = view[written:], place + written
