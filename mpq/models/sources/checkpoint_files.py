"""Reads checkpoints in pieces: the positions of tensors in safetensors files, and a few of their rows at a time.

Files are read, not mapped, because pages of a mapped file count as memory of the process while they are in use.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.errors import ModelError
from mpq.files import open_file
from mpq.limits import SAFETENSORS_HEADER_BYTES
from mpq.models.sources.huggingface import weight_files
from mpq.tensors.dtypes import TORCH_DTYPES


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file.

    Args:
        name: name of the tensor.
        dtype: its safetensors name.
        shape: shape of the tensor.
        path: the file.
        start: offset of its bytes in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * TORCH_DTYPES[self.dtype].itemsize

    def rows(self, file: int, first: int, count: int) -> Tensor:
        """`count` indices of the leading dimension from `first` on, read from an open file descriptor."""
        found = torch.empty((count, *self.shape[1:]), dtype=TORCH_DTYPES[self.dtype])
        read_into(file, found, self.start + first * (self.bytes // max(1, self.shape[0])))
        return found


def read_into(file: int, tensor: Tensor, start: int) -> None:
    """Fill a contiguous tensor with the bytes of an open file from `start` on.

    Raises:
        ModelError: if the file ends too early.
    """
    if not tensor.numel():
        return
    raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    view = memoryview(raw)
    done = 0
    while done < len(view):
        got = os.preadv(file, [view[done:]], start + done)
        if got == 0:
            raise ModelError("a file ends before its last tensor: download the model again")
        done += got


def checkpoint_files(source: Path) -> list[Path]:
    """The safetensors files of a Hugging Face directory or any other folder, or a single file, sorted by name.

    Raises:
        ModelError: if there are none, or the weights are in other files.
    """
    if not source.is_dir():
        return [source]
    found = weight_files(source) if (source / "config.json").exists() else sorted(source.glob("*.safetensors"))
    if not found or any(path.suffix != ".safetensors" for path in found):
        raise ModelError(f"{source} holds no safetensors files: convert its weights to safetensors first")
    return found


def tensors_of(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, from its header alone, in file order.

    Raises:
        ModelError: if it is missing, damaged, or has a dtype that mpq does not know.
    """
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= min(size, SAFETENSORS_HEADER_BYTES) else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        found = [
            StoredTensor(name, str(item["dtype"]), tuple(item["shape"]), path, 8 + length + int(item["data_offsets"][0]))
            for name, item in header.items()
            if name != "__metadata__"
        ]
        unknown = next((tensor for tensor in found if tensor.dtype not in TORCH_DTYPES), None)
        if unknown is not None:
            raise ValueError(f"dtype {unknown.dtype} of '{unknown.name}'")
        if any(side < 0 for tensor in found for side in tensor.shape) or any(tensor.start + tensor.bytes > size for tensor in found):
            raise ValueError("cut off")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as a .safetensors file ({error}): save or download the model again") from error
    return sorted(found, key=lambda tensor: tensor.start)
