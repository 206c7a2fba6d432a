"""Apply without the model in memory: a checkpoint in safetensors files becomes an artifact in as many files, some rows at a time.

Every quantizer that needs no statistics quantizes the rows of a matrix on their own, and 40 rows of codes end at a whole byte. So pieces
of a few megabytes go through all cores at once, and each is written to its predicted place. A file appears whole or not at all; those
that are there already are kept, and the same command goes on after an interruption. The index is written last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mpq.apply.sharded import Shard, index_of, planned_shards
from mpq.errors import ApplyError, MismatchError
from mpq.files import atomic_write, sha256_of, write_text
from mpq.formats.scheme import Scheme
from mpq.models.fingerprint import tensor_bytes
from mpq.models.shards import StoredTensor, checkpoint_files
from mpq.records.layer import Layer
from mpq.records.plan import Plan, read_plan
from mpq.tensors.kernels.stored import row_step
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.base import Quantizer
from mpq.tensors.quantizers.registry import quantizer_named

_WEIGHTS = 1 << 20  # quantized at a time by one core
_COPIED = 1 << 23  # bytes copied at a time
Job = Callable[[], None]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, file) after each file."""


@dataclass(frozen=True)
class AppliedShards:
    """What was written.

    Args:
        index: the file that names the others; what `mpq.load` takes.
        files: the files with the weights.
        file_bytes: their sizes together.
        kept: how many of them were there already.
    """

    index: Path
    files: tuple[Path, ...]
    file_bytes: int
    kept: int


def apply_shards(
    source: Path | str, plan: Plan | Path | str, folder: Path | str, *, workers: int | None = None, on_progress: Progress | None = None
) -> AppliedShards:
    """Write the artifact of `plan` to `folder`, in one file for each file of the checkpoint; the model is never loaded.

    Args:
        source: the checkpoint: a Hugging Face directory, a folder of safetensors files, or one of them.
        plan: the plan or its file; its layers must be tensors of the checkpoint.
        folder: where the files go; made if it is not there.
        workers: threads that quantize. None: one for each core.
        on_progress: told after each file.

    Raises:
        ApplyError: if the quantizer needs statistics, or the plan names layers that the checkpoint does not have.
        MismatchError: if the plan was made for another checkpoint.
        ModelError: if a file is damaged.
    """
    wanted = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    quantizer = quantizer_named(wanted.quantizer)
    if quantizer.needs_statistics:
        raise ApplyError(
            f"quantizer '{wanted.quantizer}' needs the inputs of each layer, and so the whole model in memory: apply without shards, "
            "or analyze again with --quantizer mse, which needs none"
        )
    output = Path(folder)
    output.mkdir(parents=True, exist_ok=True)
    files = checkpoint_files(Path(source))
    shards = planned_shards(Path(source), files, wanted, output)
    kept = 0
    with ThreadPoolExecutor(workers or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        digest = pool.submit(sha256_of, [*_config(Path(source)), *files]) if wanted.model.get("kind") in ("hf", "state_dict") else None
        for done, shard in enumerate(shards, start=1):
            if shard.is_there():
                kept += 1
            else:
                _write(shard, quantizer, pool)
            if on_progress is not None:
                on_progress(done, len(shards), shard.output.name)
        if digest is not None and digest.result() != wanted.model.get("sha256"):
            for shard in shards:
                shard.output.unlink()
            raise MismatchError(
                f"the plan was made for a model with sha256 {str(wanted.model.get('sha256'))[:12]}…, {source} has {digest.result()[:12]}…: "
                "give the model of the plan, or analyze this one"
            )
    index = output / "model.mpq.safetensors.index.json"
    write_text(index, json.dumps(index_of(shards), indent=1) + "\n")
    return AppliedShards(index, tuple(shard.output for shard in shards), sum(shard.bytes for shard in shards), kept)


def _config(source: Path) -> list[Path]:
    return [source / "config.json"] if (source / "config.json").exists() else []


def _write(shard: Shard, quantizer: Quantizer, pool: ThreadPoolExecutor) -> None:
    with shard.source.open("rb") as reading, atomic_write(shard.output) as file:
        file.write(shard.first)
        file.truncate(shard.bytes)
        file.flush()
        source, target = reading.fileno(), file.fileno()
        jobs: list[Job] = []
        for tensor in shard.tensors:
            layer = shard.layers.get(tensor.name)
            if layer is None:
                jobs += _copies(tensor, source, target, shard.places[tensor.name])
            else:
                jobs += _pieces(tensor, layer, shard, quantizer, source, target)
        for _ in pool.map(lambda job: job(), jobs):
            pass


def _copies(tensor: StoredTensor, source: int, target: int, place: int) -> Iterator[Job]:
    for first in range(0, tensor.bytes, _COPIED):
        yield partial(_copy, source, target, tensor.start + first, place + first, min(_COPIED, tensor.bytes - first))


def _copy(source: int, target: int, start: int, place: int, size: int) -> None:
    _put(target, os.pread(source, size, start), place)


def _pieces(tensor: StoredTensor, layer: Layer, shard: Shard, quantizer: Quantizer, source: int, target: int) -> Iterator[Job]:
    rows, columns = layer.matrix
    scheme = shard.header.schemes[layer.name]
    places = {part.part: shard.places[f"{layer.name}.{part.part}"] for part in scheme.stored(layer.matrix)}
    step = row_step(scheme)
    size = max(step, _WEIGHTS // columns // step * step)
    if layer.axes != (0,):
        yield partial(_quantize_whole, tensor, layer, scheme, quantizer, source, target, places, size)
        return
    for first in range(0, rows, size):
        yield partial(_quantize_rows, tensor, scheme, quantizer, source, target, places, first, min(size, rows - first))


def _quantize_whole(
    tensor: StoredTensor, layer: Layer, scheme: Scheme, quantizer: Quantizer, source: int, target: int, places: dict[str, int], size: int
) -> None:
    """A tensor whose outputs do not lie one after the other is held whole."""
    matrix = to_matrix(tensor.rows(source, 0, tensor.shape[0]), layer.axes)
    for first in range(0, len(matrix), size):
        _store(matrix[first : first + size], scheme, quantizer, target, places, first)


def _quantize_rows(
    tensor: StoredTensor, scheme: Scheme, quantizer: Quantizer, source: int, target: int, places: dict[str, int], first: int, count: int
) -> None:
    _store(tensor.rows(source, first, count).reshape(count, -1).float(), scheme, quantizer, target, places, first)


def _store(matrix: Tensor, scheme: Scheme, quantizer: Quantizer, target: int, places: dict[str, int], first: int) -> None:
    """Quantize the rows of a layer from `first` on, a whole number of bytes, and write them to their places."""
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
