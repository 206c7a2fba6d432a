"""A Hugging Face directory whose weights stay in their files."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.files import open_file
from mpq.models.memory.offload import Offload, note_uses
from mpq.models.memory.replaced_tensors import replace_tensor
from mpq.models.sources.checkpoint_files import StoredTensor, checkpoint_files, tensors_of
from mpq.models.sources.huggingface import described_checkpoint, rebuild_directory
from mpq.tensors.dtypes import TORCH_DTYPES

_WITHOUT = "load it without --offload"
_SHOWN = 4


def map_directory(directory: Path, offload: Offload) -> nn.Module:
    """The module of a directory, built without memory for its parameters: these are mapped, buffers are read.

    Raises:
        ModelError: if the weights are not in safetensors files, or not stored as in the module: under other names, in parts or in another
        dtype.
    """
    stored = {tensor.name: tensor for path in checkpoint_files(directory) for tensor in tensors_of(path)}
    config = described_checkpoint(directory, {name: TORCH_DTYPES[tensor.dtype] for name, tensor in stored.items()})
    module = rebuild_directory({**config, "tensor_dtypes": {}}, hollow=True)
    files: dict[Path, mmap.mmap] = {}
    for names, tensor in _tied(module):
        found = [stored[name] for name in names if name in stored]
        if not found:
            raise ModelError(f"{directory} lacks weights of {type(module).__name__}: {', '.join(names[:_SHOWN])}; {_WITHOUT}")
        values = [_value(one, tensor, files, offload) for one in found]
        if any(not torch.equal(value, values[0]) for value in values[1:]):
            raise ModelError(f"'{found[0].name}' and '{found[1].name}' are tied, and stored with different values: {_WITHOUT}")
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(values[0], requires_grad=tensor.requires_grad)
            for name in names:
                replace_tensor(module, name, made)
        else:
            tensor.copy_(values[0])
    note_uses(module)
    return module.eval()


def _tied(module: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Each parameter and buffer of the state dict, with all its names."""
    groups: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(groups.values())


def _value(stored: StoredTensor, tensor: Tensor, files: dict[Path, mmap.mmap], offload: Offload) -> Tensor:
    """The stored values of `tensor`, mapped; `files` are the open files, to which new ones are added."""
    dtype = TORCH_DTYPES[stored.dtype]
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, stored.shape):
        there, here = _described(dtype, stored.shape), _described(tensor.dtype, tensor.shape)
        raise ModelError(f"'{stored.name}' is {there} in {stored.path} and {here} in the model: {_WITHOUT}")
    if stored.path not in files:
        with open_file(stored.path) as file:
            files[stored.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return offload.mapped(files[stored.path], dtype, stored.shape, stored.start)


def _described(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
