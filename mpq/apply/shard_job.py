"""Apply by shards, alone or shared: which process writes which file of an artifact.

Nothing is written before the checkpoint is known to be the plan's. Files that an interrupted run of the same command finished are kept,
where their contents are still what it wrote (`shard_digests.py`). The index is written last.

Several machines may run the same command on one folder that they share. The first holds the index and writes it; the others claim files,
each by a lock, and leave them to it. Where one is killed, its file is free again; where the first is, another takes its place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from mpq.apply.shard_digests import INDEX, Parts, finished_names, identity_of, is_finished, leave_done, noted_identity
from mpq.apply.shard_plan import Shard, planned_shards
from mpq.apply.shard_writer import write_shard
from mpq.errors import ApplyError, HeldError, MismatchError, OutputError
from mpq.files import sha256_of
from mpq.models.sources.checkpoint_files import checkpoint_files
from mpq.records.plan import Plan, read_plan
from mpq.tensors.quantizers.base import Quantizer
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.writing.locks import held, refuse_held
from mpq.writing.outputs import refuse_inputs, refuse_special

_POLL = 0.1  # seconds between two looks at what others do
WORK = "`mpq apply --shards`"
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
        HeldError: if another process writes an artifact of a different plan or model to `folder`; one with the same plan is helped.
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
    job = Job(origin, files, shards, wanted, quantizer, workers, on_progress or (lambda *_: None))
    while True:
        try:
            with held(output / INDEX, work=WORK):
                return job.lead()
        except HeldError:
            if not held_index(output) or job.help():
                continue
            raise


def held_index(folder: Path) -> bool:
    """Whether a process holds the index of the artifact in `folder`."""
    try:
        refuse_held(folder / INDEX, work=WORK)
    except HeldError:
        return True
    return False


@dataclass(frozen=True)
class Job:
    """One artifact to be written: `lead` by the process that holds the index, `help` by the others.

    Args:
        source: the checkpoint.
        files: of the checkpoint.
        shards: of the artifact.
        plan: the plan.
        quantizer: of the plan.
        workers: threads; None: one for each core.
        on_progress: told after each file.
    """

    source: Path
    files: Sequence[Path]
    shards: Sequence[Shard]
    plan: Plan
    quantizer: Quantizer
    workers: int | None
    on_progress: Progress

    def lead(self) -> AppliedShards:
        """Write what is not there, take over what others write, and then the index."""
        self.on_progress(0, len(self.shards), "reading the model")
        before, identity = self._states(), self._identity()
        parts = Parts(self.shards[0].output.parent, identity)
        kept = [shard for shard in self.shards if parts.holds(shard)]
        if len(kept) < len(self.shards):
            parts.begin(kept)
        pending = [shard for shard in self.shards if shard not in kept]
        with closing(parts), self._threads() as pool:
            while pending:
                for shard in list(pending):
                    there = parts.taken_over(shard) or self._claimed(shard, parts.taken_over, pool, before, parts.finished)
                    if not there:
                        continue
                    pending.remove(shard)
                    self.on_progress(len(self.shards) - len(pending), len(self.shards), shard.output.name)
                if pending:
                    time.sleep(_POLL)
            parts.complete(self.shards)
        return AppliedShards(parts.index, tuple(s.output for s in self.shards), sum(s.bytes for s in self.shards), len(kept))

    def help(self) -> bool:
        """Write what nobody else does, the last file first, until the index is free; False if another artifact is being written."""
        before, identity, folder = self._states(), self._identity(), self.shards[0].output.parent
        with self._threads() as pool:
            while held_index(folder):
                noted = noted_identity(folder)
                if noted not in (None, identity):
                    return False
                finished = finished_names(folder, identity)
                for shard in () if noted is None else reversed(self.shards):
                    if shard.output.name not in finished:
                        self._claimed(shard, lambda s: is_finished(s, identity), pool, before, lambda s: leave_done(s, identity))
                time.sleep(_POLL)
        return True

    def _claimed(
        self,
        shard: Shard,
        is_done: Callable[[Shard], bool],
        pool: ThreadPoolExecutor,
        before: Sequence[tuple[int, int, int]],
        finished: Callable[[Shard], None],
    ) -> bool:
        """Whether a file is there now: written here, or by another process in the meantime; False while another writes it."""
        try:
            with held(shard.output, work=WORK):
                if is_done(shard):
                    return True
                write_shard(shard, self.quantizer, pool)
                if self._states() != before:
                    raise MismatchError(f"{self.source} changed while it was read: run the command again")
                finished(shard)
        except HeldError:
            return False
        return True

    def _identity(self) -> str:
        digest, expected = sha256_of(self._inputs()), self.plan.model.get("sha256")
        if self.plan.model.get("kind") in ("hf", "state_dict") and digest != expected:
            raise MismatchError(
                f"the plan was made for a model with sha256 {str(expected)[:12]}…, but {self.source} has {digest[:12]}…: "
                "give the plan's model, or analyze this one"
            )
        return identity_of(digest, self.plan)

    def _inputs(self) -> list[Path]:
        return [*_config(self.source), *self.files]

    def _states(self) -> list[tuple[int, int, int]]:
        return [_state(path) for path in self._inputs()]

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))


def _state(path: Path) -> tuple[int, int, int]:
    """What tells that a file was changed."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _config(source: Path) -> list[Path]:
    return [source / "config.json"] if (source / "config.json").exists() else []
