"""Loading a model by the content of the file, whatever its name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpq.errors import ModelError, UsageError
from mpq.files import sha256_of
from mpq.models.memory.devices import CPU, device_named, move
from mpq.models.memory.offload import LIMIT_BYTES, Offload
from mpq.models.sources.checks import check_sound, state_sha256
from mpq.models.sources.detect_kind import sniff
from mpq.models.sources.exported_program import load_program
from mpq.models.sources.hub import fetch
from mpq.models.sources.huggingface import load_directory
from mpq.models.sources.inference_tensors import replace_inference_tensors
from mpq.models.sources.loaded import LoadedModel
from mpq.models.sources.mapped_checkpoint import map_directory
from mpq.models.sources.state_dict import Reading, code_named_by_file
from mpq.models.sources.torch_files import load_safetensors, load_saved, load_torchscript
from mpq.records.facts import checkpoint_options
from mpq.records.hub_name import hub_name
from mpq.records.named_code import named_factory

_SELF_CONTAINED = {"export": "a torch.export archive", "torchscript": "TorchScript", "hf": "a Hugging Face directory"}


def load_model(
    path: str | Path,
    *,
    factory: str | None = None,
    trust: bool = False,
    offload: str | Path | None = None,
    max_memory: int | None = None,
    key: str | None = None,
    allow_unexpected: bool = False,
    device: str | None = None,
) -> LoadedModel:
    """Load the model at `path`, in eval mode.

    Args:
        path: a torch.export archive, TorchScript, a state dict (.pt or .safetensors), a pickled module, a Hugging Face directory, or
            "hf://org/name@revision", which is downloaded.
        factory: "package.module:callable", called without arguments to build the module for a state dict.
        trust: allow a file to run its own code while it is loaded; otherwise such a file is refused.
        offload: folder for the analysis's temporary data; the weights of a Hugging Face directory then stay in their files
            (`models/memory`). Use the module only for an analysis: its parameters are read-only, and writing to one crashes the process.
        max_memory: with `offload`, memory limit in bytes for weights and temporary data; None for 1 GiB.
        key: for a checkpoint, the entry with the weights (its keys joined by dots) or a prefix of names in it; None uses the only one that
            matches.
        allow_unexpected: ignore names of a state dict that the module does not have; `LoadedModel.notes` lists them.
        device: where the model computes: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest one; None for the CPU.

    Raises:
        ModelError: if the file is missing, damaged, has an unsupported format, needs `trust`, does not match `factory`, or has several sets
            of weights that do.
        NumericsError: if a weight has NaN or infinity.
        UsageError: if `device` is not there, `factory`, `key` or `allow_unexpected` cannot be used, or `offload` with a device or with a
            model that is not a Hugging Face directory.
    """
    place = CPU if device is None else device_named(device)
    if offload is not None and place != CPU:
        raise UsageError(f"--offload leaves weights in files, from which the CPU reads them: leave out --device {device}")
    name = hub_name(path)
    fetched = None if name is None else fetch(name, trust=trust)
    path = Path(path) if fetched is None else fetched.folder
    content = sniff(path)
    if content in _SELF_CONTAINED and (needless := _options_of_state_dicts(factory, key, allow_unexpected)):
        raise UsageError(f"{path} is {_SELF_CONTAINED[content]} and contains its own module: leave out {needless}")
    if offload is not None and content != "hf":
        raise UsageError(f"{path} is not a Hugging Face directory; only those can keep their weights in files: leave out --offload")
    store = None if offload is None else Offload(Path(offload), limit=LIMIT_BYTES if max_memory is None else max_memory)
    reading = Reading(factory, key, allow_unexpected)
    with torch.inference_mode(mode=False):  # otherwise the module could not be modified or trained later
        loaded = _load(content, path, reading, trust=trust) if store is None else _offloaded(path, store, trust=trust)
    check_sound(loaded.module, str(path))
    if place != CPU:
        move(loaded.module, place)
    if fetched is None:
        return loaded
    return replace(loaded, hub=str(fetched.name), notes=(*loaded.notes, f"downloaded: {fetched.name}, all files of this commit"))


def load_named(path: Path, facts: Mapping[str, Any], beside: Path, *, factory: str | None, trust: bool, **options: Any) -> LoadedModel:
    """Load the model that a plan, an analysis or an artifact names, read in the same way as then.

    Args:
        path: path of the model.
        facts: facts about the model from the file: its factory, and how a checkpoint is read.
        beside: the file, for messages.
        factory: what builds the module for a state dict, if the user names it.
        trust: allow a pickled module, and the factory that the file names.
        **options: `device`, `offload` and `max_memory`; see `load_model`.

    Raises:
        TrustError: if the file names a factory, the user names none, and `trust` does not allow it.
        ModelError: like `load_model`.
    """
    named = None if factory is not None else named_factory(facts, beside, trust=trust)
    with nullcontext() if named is None else code_named_by_file():
        return load_model(path, factory=factory or named, trust=trust, **options, **checkpoint_options(facts))


def from_module(module: nn.Module) -> LoadedModel:
    """A model that is already in memory. It is not copied, except for tensors made under torch.inference_mode.

    Raises:
        ModelError: if the module is in training mode, or has no values yet.
        NumericsError: if a weight holds NaN or infinity.
    """
    if module.training:
        raise ModelError("the model is in training mode: call model.eval() first")
    replace_inference_tensors(module)
    check_sound(module, type(module).__name__)
    return LoadedModel(module, "memory", state_sha256(module))


def _offloaded(path: Path, offload: Offload, *, trust: bool) -> LoadedModel:
    return replace(load_directory(path, trust=trust, build=lambda directory: map_directory(directory, offload)), offload=offload)


def _options_of_state_dicts(factory: str | None, key: str | None, allow_unexpected: bool) -> str:
    given = {f"--builder {factory}": factory is not None, f"--checkpoint-key {key}": key is not None}
    return " and ".join(text for text, there in (given | {"--allow-unexpected": allow_unexpected}).items() if there)


def _load(content: str, path: Path, reading: Reading, *, trust: bool) -> LoadedModel:
    if content == "hf":
        return load_directory(path, trust=trust)
    sha256 = sha256_of([path])
    if content == "export":
        return load_program(path, sha256=sha256, trust=trust)
    if content == "torchscript":
        return load_torchscript(path, sha256=sha256, trust=trust)
    if content == "safetensors":
        return load_safetensors(path, sha256=sha256, reading=reading)
    return load_saved(path, sha256=sha256, reading=reading, trust=trust)
