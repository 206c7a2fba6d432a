"""Files of torch.save, torch.jit.save and safetensors, read without running any code from the file unless trusted."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mpq.data.tensors_only import HoldsCodeError, load_tensors, reason_of
from mpq.errors import ModelError
from mpq.files import open_file
from mpq.models.sources.checkpoint_entries import Entry, find_entries
from mpq.models.sources.loaded import LoadedModel
from mpq.models.sources.state_dict import Reading, build_module, code_named_by_file, working_directory_importable
from mpq.models.sources.torchscript_guard import checked_script

T = TypeVar("T")
_jit_load: Callable[..., nn.Module] = torch.jit.load
_AGAIN = "save or download the model again"


def load_torchscript(path: Path, *, sha256: str, trust: bool) -> LoadedModel:
    """A TorchScript archive in eval mode.

    Raises:
        ModelError: if the archive is damaged, or could run code or reach files and `trust` is not set.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load.* is deprecated", category=Warning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load.* is not supported", category=Warning)
        module: nn.Module = _read(lambda: _script(path, trust=trust), path, "TorchScript archive")
    return LoadedModel(module.eval(), "torchscript", sha256, path=path)


def _script(path: Path, *, trust: bool) -> nn.Module:
    if trust:
        return _jit_load(str(path), map_location="cpu")
    with open_file(path) as file:
        return _jit_load(checked_script(file, str(path)), map_location="cpu")


def load_saved(path: Path, *, sha256: str, reading: Reading, trust: bool) -> LoadedModel:
    """The contents of a torch.save file: a state dict, or with `trust` a pickled module.

    Raises:
        ModelError: if the file is damaged, has no model, or needs trust that was not given.
    """
    content = _unpickle(path) if trust else _load_weights(path)
    if isinstance(content, nn.Module):
        return LoadedModel(content.eval(), "pickle", sha256, path=path)
    entries = find_entries(content)
    if not entries:
        raise ModelError(f"{path} holds {_described(content)} and not a model: give a state dict or a torch.export archive")
    return _filled(entries, reading, path=path, sha256=sha256)


def load_safetensors(path: Path, *, sha256: str, reading: Reading) -> LoadedModel:
    """A state dict in a .safetensors file.

    Raises:
        ModelError: if the file is damaged, or is already an artifact of mpq.
    """
    state = _read(lambda: _load_tensors(path), path, ".safetensors file")
    return _filled([Entry("", state)], reading, path=path, sha256=sha256)


def _filled(entries: Sequence[Entry], reading: Reading, *, path: Path, sha256: str) -> LoadedModel:
    module, notes = build_module(entries, reading, path=path)
    return LoadedModel(
        module,
        "state_dict",
        sha256 if reading.key is None else hashlib.sha256(f"{sha256} {reading.key}".encode()).hexdigest(),
        path=path,
        factory=reading.factory,
        checkpoint_key=reading.key,
        allow_unexpected=reading.allow_unexpected,
        notes=notes,
    )


def _load_tensors(path: Path) -> dict[str, Tensor]:
    with safetensors.safe_open(path, framework="pt") as file:
        if "mpq" in (file.metadata() or {}):
            raise ModelError(f"{path} is already an mpq artifact: run it with `mpq eval` or mpq.load, or give the original model")
    return load_file(path)


def _load_weights(path: Path) -> object:
    try:
        with open_file(path) as file:
            return load_tensors(file)
    except HoldsCodeError as error:
        raise ModelError(
            f"{path} holds pickled Python objects ({error}), which run code when loaded: save a torch.export archive or a state dict "
            "instead, or add --trust if you trust the file; its code then runs with your rights"
        ) from error
    except Exception as error:  # the file decides what goes wrong in torch, so any failure is the file's
        raise _damaged(path, "file of torch.save", error) from error


def _unpickle(path: Path) -> object:
    with code_named_by_file(), working_directory_importable():
        return _read(lambda: torch.load(path, weights_only=False, map_location="cpu"), path, "file of torch.save")


def _read(load: Callable[[], T], path: Path, kind: str) -> T:
    try:
        return load()
    except ModelError:
        raise
    except Exception as error:  # any failure in the reader is caused by the file
        raise _damaged(path, kind, error) from error


def _damaged(path: Path, kind: str, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be read as a {kind} ({reason_of(error)}): {_AGAIN}")


def _described(content: object) -> str:
    if isinstance(content, dict):
        keys = ", ".join(str(key) for key in list(content)[:4])
        return f"a dict with {keys}" if keys else "an empty dict"
    return "a tensor" if isinstance(content, Tensor) else f"a {type(content).__name__}"
