"""Offload: weights stay in their files, and results go to a folder, with a limit on how much of them is in memory at once.

A checkpoint in safetensors files is mapped read-only: a weight is a tensor whose memory is the file, and the system reads its pages when
they are used. So a weight keeps its address, and everything that identifies weights by their memory (discovery, ties, statistics, replay)
works as with a model in memory, on the same values. If more than `limit` bytes are in memory, the least recently used parts are dropped.
Quantized weights and the reference's outputs are written to unnamed files in a folder and mapped in the same way; the system removes these
files when the process ends, even if it is killed.

Accelerate's hooks, in contrast, replace a module's parameters by new tensors before its forward pass and remove them afterwards.
"""

from __future__ import annotations

import mmap
import tempfile
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.hashing import tensor_bytes
from mpq.files import OutputError
from mpq.models.memory.malloc_trim import return_large_blocks
from mpq.models.memory.storage_tracker import pointer

LIMIT_BYTES = 1 << 30
_AROUND = 1 << 16  # bytes around a read byte that Linux maps with it


class Offload:
    """Where tensors are while they are not used.

    Args:
        folder: folder for the unnamed files; created if needed.
        limit: bytes of mapped tensors in memory at once; a larger tensor is in memory alone.
        remedy: what to do where the folder cannot be written to, for messages.

    Raises:
        OutputError: if the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT_BYTES, remedy: str = "choose another folder with --offload") -> None:
        self.folder, self.limit, self._remedy = folder, limit, remedy
        self._used: OrderedDict[int, int] = OrderedDict()  # bytes in memory by address, least recently used first
        self._held = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise self._unwritable(error) from error
        return_large_blocks()

    def mapped(self, buffer: mmap.mmap, dtype: torch.dtype, shape: Sequence[int], start: int) -> Tensor:
        """The tensor at byte `start` of a mapped file, not copied; writing to it crashes the process."""
        count = torch.Size(shape).numel()
        if not count:
            return torch.empty(tuple(shape), dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            tensor = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start).reshape(tuple(shape))
        address = pointer(tensor)
        gone = weakref.ref(buffer, lambda _: self._forget(address))
        _PIECES[address] = _Piece(self, gone, start, count * dtype.itemsize)
        return tensor

    @property
    def held(self) -> int:
        """Bytes of mapped tensors that are in memory now."""
        return self._held

    def keep(self, tensor: Tensor) -> Tensor:
        """The same values, on disk.

        Raises:
            OutputError: if the disk is full.
        """
        if not tensor.numel():
            return tensor
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(memoryview(tensor_bytes(tensor)))
                file.flush()
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._unwritable(error) from error
        return self.mapped(buffer, tensor.dtype, tensor.shape, 0)

    def use(self, address: int, piece: _Piece) -> None:
        """Record that a piece is about to be read, and drop the least recently used pieces from memory."""
        self._held += piece.length - self._used.pop(address, 0)
        self._used[address] = piece.length
        while self._held > self.limit and len(self._used) > 1:
            oldest, length = self._used.popitem(last=False)
            self._held -= length
            _PIECES[oldest].leave()

    def _forget(self, address: int) -> None:
        _PIECES.pop(address, None)
        self._held -= self._used.pop(address, 0)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write to {self.folder}: {error.strerror or error}; {self._remedy}")


@dataclass(frozen=True)
class _Piece:
    """A part of a mapped file."""

    owner: Offload
    buffer: weakref.ref[mmap.mmap]
    start: int
    length: int

    def leave(self) -> None:
        """Drop its pages from the memory of this process; they are read from the file again when needed."""
        buffer, advice = self.buffer(), getattr(mmap, "MADV_DONTNEED", None)  # if not available, as on Windows, the system decides
        if buffer is not None and advice is not None:
            first = max(0, self.start - _AROUND) // mmap.PAGESIZE * mmap.PAGESIZE
            buffer.madvise(advice, first, min(len(buffer), self.start + self.length + _AROUND) - first)


_PIECES: dict[int, _Piece] = {}  # by the address of the tensor


def is_mapped(tensor: Tensor) -> bool:
    """Whether the memory of `tensor` is a file."""
    return pointer(tensor) in _PIECES


def used(tensor: Tensor) -> None:
    """Record that `tensor` is about to be read; no effect unless it is mapped."""
    address = pointer(tensor)
    if address in _PIECES:
        _PIECES[address].owner.use(address, _PIECES[address])


def note_uses(module: nn.Module) -> None:
    """Make each submodule record the use of its own parameters before its forward pass."""

    def before(owner: nn.Module, _: Any) -> None:
        for parameter in owner.parameters(recurse=False):
            used(parameter)

    for child in module.modules():
        if any(is_mapped(parameter) for parameter in child.parameters(recurse=False)):
            child.register_forward_pre_hook(before)
