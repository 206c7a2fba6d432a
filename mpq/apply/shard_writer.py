"""Apply without the model in memory: a checkpoint in safetensors files becomes an artifact in the same number of files, a few rows at a
time.

Quantizers that need no statistics quantize each row of a matrix independently, and 40 rows of codes end at a whole byte. So pieces of a few
megabytes are processed on all cores, and each is written to its predicted offset. Nothing is written before the checkpoint is known to be
the plan's. Each file is written atomically. Files that an interrupted run of the same command finished are kept if their contents are
unchanged (`shard_digests.py`). The index is written last.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mpq.apply.shard_digests import INDEX, Parts, identity_of
from mpq.apply.shard_plan import Shard, planned_shards, stored_dtype
from mpq.data.hashing import tensor_bytes
from mpq.errors import ApplyError, MismatchError, OutputError
from mpq.files import atomic_write, sha256_of
from mpq.formats.scheme import Scheme
from mpq.models.sources.checkpoint_files import StoredTensor, checkpoint_files, read_into
from mpq.records.layer import Layer
from mpq.records.plan import Plan, read_plan
from mpq.tensors.dtypes import TORCH_DTYPES
from mpq.tensors.kernels.stored import row_step
from mpq.tensors.matrix import to_matrix
from mpq.tensors.narrow import narrowed
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.base import Quantizer
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.writing.locks import held
from mpq.writing.outputs import refuse_inputs, refuse_special

_WEIGHTS = 1 << 20  # weights quantized at a time by one core
_COPIED = 1 << 23  # bytes copied at a time
Job = Callable[[], None]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, file) after each file."""


@dataclass(frozen=True)
class AppliedShards:
    """What was written.

    Args:
        index: the file that names the others; pass it to `mpq.load`.
        files: the files with the weights.
        file_bytes: their total size.
        kept: how many of them existed already.
    """

    index: Path
    files: tuple[Path, ...]
    file_bytes: int
    kept: int


def apply_shards(
    source: Path | str, plan: Plan | Path | str, folder: Path | str, *, workers: int | None = None, on_progress: Progress | None = None
) -> AppliedShards:
    """Write the artifact of `plan` to `folder`, one file for each file of the checkpoint. The model is never loaded.

    Args:
        source: the checkpoint: a Hugging Face directory, a folder of safetensors files, or one of them.
        plan: the plan or its file; its layers must be tensors of the checkpoint.
        folder: folder for the files; created if needed.
        workers: threads that quantize; None uses one per core.
        on_progress: called after each file.

    Raises:
        ApplyError: if the quantizer needs statistics, or the plan names layers that the checkpoint does not have.
        MismatchError: if the plan was made for a different checkpoint; nothing is written.
        HeldError: if another process writes to `folder`.
        OutputError: if `folder` cannot be written to, or one of its files is an input.
        ModelError: if a file is damaged.
    """
    wanted = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    quantizer = quantizer_named(wanted.quantizer)
    if quantizer.needs_statistics:
        raise ApplyError(
            f"quantizer '{wanted.quantizer}' needs the inputs of each layer and therefore the whole model in memory: apply without "
            "--shards, or analyze again with --quantizer mse, which needs no inputs"
        )
    output, origin = Path(folder), Path(source)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror or error}; choose another with --shards") from error
    files = checkpoint_files(origin)
    shards = planned_shards(origin, files, wanted, output)
    for place in (*(shard.output for shard in shards), output / INDEX):
        refuse_special(place)
        refuse_inputs(place, [*files, plan if isinstance(plan, Path) else None])
    with held(output / INDEX, work="`mpq apply --shards`"):
        return _apply(origin, files, shards, wanted, quantizer, workers, on_progress or (lambda *_: None))


def _apply(
    source: Path,
    files: Sequence[Path],
    shards: Sequence[Shard],
    plan: Plan,
    quantizer: Quantizer,
    workers: int | None,
    on_progress: Progress,
) -> AppliedShards:
    on_progress(0, len(shards), "reading the model")
    inputs = [*_config(source), *files]
    before = [_state(path) for path in inputs]
    digest = sha256_of(inputs)
    if plan.model.get("kind") in ("hf", "state_dict") and digest != plan.model.get("sha256"):
        raise MismatchError(
            f"the plan was made for a model with sha256 {str(plan.model.get('sha256'))[:12]}…, but {source} has {digest[:12]}…: give the "
            "plan's model, or analyze this one"
        )
    parts = Parts(shards[0].output.parent, identity_of(digest, plan))
    kept = [shard for shard in shards if parts.holds(shard)]
    if len(kept) < len(shards):
        parts.begin(kept)
    with closing(parts), ThreadPoolExecutor(workers or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, shard in enumerate(shards, start=1):
            if shard not in kept:
                _write(shard, quantizer, pool)
                if [_state(path) for path in inputs] != before:
                    raise MismatchError(f"{source} changed while it was read: run the command again")
                parts.finished(shard)
            on_progress(done, len(shards), shard.output.name)
        parts.complete(shards)
    return AppliedShards(parts.index, tuple(shard.output for shard in shards), sum(shard.bytes for shard in shards), len(kept))


def _state(path: Path) -> tuple[int, int, int]:
    """The state by which a change of a file is detected."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


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
                jobs += _copies(tensor, shard.header.rest_dtype, source, target, shard.places[tensor.name])
            else:
                jobs += _pieces(tensor, layer, shard, quantizer, source, target)
        for _ in pool.map(lambda job: job(), jobs):
            pass


def _copies(tensor: StoredTensor, dtype: str | None, source: int, target: int, place: int) -> Iterator[Job]:
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


def _pieces(tensor: StoredTensor, layer: Layer, shard: Shard, quantizer: Quantizer, source: int, target: int) -> Iterator[Job]:
    rows, columns = layer.matrix
    scheme = shard.header.schemes[layer.name]
    places = {part.part: shard.places[f"{layer.name}.{part.part}"] for part in scheme.stored(layer.matrix)}
    step = row_step(scheme)
    size = rows if scheme.is_coded else max(step, _WEIGHTS // columns // step * step)  # a coded layer has one step
    if layer.axes != (0,) or layer.groups > 1:
        yield partial(_quantize_whole, tensor, layer, scheme, quantizer, source, target, places, size)
        return
    for first in range(0, rows, size):
        yield partial(_quantize_rows, tensor, scheme, quantizer, source, target, places, first, min(size, rows - first))


def _quantize_whole(
    tensor: StoredTensor, layer: Layer, scheme: Scheme, quantizer: Quantizer, source: int, target: int, places: dict[str, int], size: int
) -> None:
    """A tensor whose output rows are not contiguous is kept in memory as a whole."""
    matrix = to_matrix(tensor.rows(source, 0, tensor.shape[0]), layer.axes, layer.groups)
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
