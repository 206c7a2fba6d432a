"""Hugging Face directories: loading one offline, and building its module from the configuration alone."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpq.distribution import install
from mpq.errors import ModelError
from mpq.files import exists, open_file, sha256_of
from mpq.limits import CONFIG_BYTES, INDEX_BYTES
from mpq.models.memory.replaced_tensors import fill_hollow, hollow_parameters
from mpq.models.sources.huggingface_checks import allowed_parameters, check_harmless, check_pickle, check_size
from mpq.models.sources.loaded import LoadedModel
from mpq.shown import listed, shown_bare

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_OWN_KEYS = ("architecture", "tensor_dtypes")
_SHOWN = 4
_REMARKING = ("torchao", "torch.utils._pytree")  # loggers that print remarks on CUDA libraries and enums while torchao is imported


def load_directory(directory: Path, *, trust: bool, build: Callable[[Path], nn.Module] | None = None) -> LoadedModel:
    """The model of a Hugging Face directory, in the dtype of its checkpoint; nothing is downloaded.

    Args:
        directory: as `save_pretrained` writes it.
        trust: allow code in the directory.
        build: builds the module of a directory instead of transformers' `from_pretrained`.

    Raises:
        ModelError: if transformers is missing, the directory is incomplete or damaged, or it has code and `trust` is not set.
    """
    config = _read_config(directory)
    if not trust:
        check_harmless(config, str(directory))
    if "quantization_config" in config:
        raise ModelError(f"{directory} is already quantized (quantization_config): give the original checkpoint")
    weights = weight_files(directory)
    remote = "auto_map" in config
    for path in () if trust else weights:
        check_pickle(path)
    if build is None:
        with _quiet(_transformers()):  # accessing a class imports it
            most = None if trust else sum(path.stat().st_size for path in weights)
            if most is not None:
                check_size(_model_classes(config, remote=False), config, directory, most=most)
            with hollow_parameters(most=allowed_parameters(most), keep=True):
                module = _from_pretrained(directory, _model_classes(config, remote=remote), trust=trust)
    else:
        module = build(directory)
    return LoadedModel(
        module,
        "hf",
        sha256_of([directory / "config.json", *weights]),
        path=directory,
        config=None if remote else {**config, **_described(module)},
        tokenizer=directory if any((directory / name).is_file() for name in _TOKENIZER_FILES) else None,
    )


def rebuild_directory(config: dict[str, Any], *, hollow: bool = False, most: int | None = None) -> nn.Module:
    """The module that `load_directory` described in `config`, with zeros as weights, or none with `hollow`; ties are tied.

    Args:
        config: from an artifact, which may come from anyone.
        hollow: leave the parameters without memory.
        most: number of parameters with values; None allows any number.

    Raises:
        ModelError: if transformers is missing, does not know the architecture, would run code for it, or builds more parameters.
    """
    transformers = _transformers()
    architecture = shown_bare(config.get("architecture"))
    check_harmless(config, "the artifact")
    fields = {key: value for key, value in config.items() if key not in _OWN_KEYS}
    try:
        with (
            _quiet(transformers),
            torch.random.fork_rng(devices=[]),
            hollow_parameters(most=allowed_parameters(most)),
        ):
            model_class = _class_named(architecture)
            made = model_class.config_class.from_dict(fields)
            module: nn.Module = model_class._from_config(made, dtype=_dtype(config["dtype"]))
        count = sum(parameter.numel() for parameter in module.parameters())
        if most is not None and count > most:
            raise ModelError(f"its configuration makes {count:,} parameters, but there are values for only {most:,}")
        dtypes = config["tensor_dtypes"]
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                tensor.data = tensor.data.to(_dtype(dtypes.get(name, str(tensor.dtype)))).zero_()
    except Exception as error:  # another version of transformers may raise any error
        reason = _reason(error)
        raise ModelError(f"transformers {transformers.__version__} cannot make {architecture} ({reason}): upgrade transformers") from error
    if not hollow:
        fill_hollow(module)
    return module.eval()


def described_checkpoint(directory: Path, dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """The `config` that `load_directory` would give for a checkpoint, from its configuration and the dtypes of its tensors alone.

    Raises:
        ModelError: if the configuration is missing or names no class; a model with its own code must be loaded.
    """
    config = _read_config(directory)
    named = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if not named or "auto_map" in config:
        raise ModelError(
            f"{directory / 'config.json'} names no class of transformers: load the model into memory, without --shards or --offload"
        )
    floats = {name: dtype for name, dtype in dtypes.items() if dtype.is_floating_point}
    common = config.get("dtype") or config.get("torch_dtype") or str(next(iter(floats.values()), torch.float32))
    dtype = str(common).removeprefix("torch.")
    others = {name: str(found) for name, found in floats.items() if found != _dtype(dtype)}
    return {**config, "architecture": named[0], "dtype": dtype, "tensor_dtypes": others}


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    config = _json(path, CONFIG_BYTES)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} names no model_type: give a directory saved by save_pretrained")
    if not isinstance(config.get("architectures") or [], list):
        raise ModelError(f"{path} has architectures that are not a list: save or download the model again")
    return config


def _json(path: Path, limit: int) -> Any:
    try:
        with open_file(path) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ValueError(f"more than {limit:,} bytes")
        return json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path} ({_reason(error)}): save or download the model again") from error


def weight_files(directory: Path) -> list[Path]:
    """The files with the weights, sorted: safetensors if there are any."""
    name = next((name for name in _WEIGHT_FILES if (directory / name).is_file()), None)
    if name is None:
        raise ModelError(f"{directory} holds no weights (model.safetensors or pytorch_model.bin): download the model again")
    if not name.endswith(".index.json"):
        return [directory / name]
    try:
        shards = sorted(set(_json(directory / name, INDEX_BYTES)["weight_map"].values()))
        stray = next((shard for shard in shards if Path(shard).name != shard), None)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"cannot read {directory / name}: download the model again") from error
    if not shards or stray is not None:
        raise ModelError(f"{directory / name} names {shown_bare(stray)}, which is not a file in the same folder: download the model again")
    missing = [shard for shard in shards if not exists(directory / shard)]
    if missing:
        raise ModelError(f"{directory} lacks {listed(missing, _SHOWN)}: download the model again")
    return [directory / shard for shard in shards]


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(f"a Hugging Face model needs transformers: {install('hf')}") from error


def _model_classes(config: dict[str, Any], *, remote: bool) -> list[Any]:
    """The classes to try in turn: the one that the configuration names, else a causal language model, else the bare model."""
    transformers = _transformers()
    if remote:
        names = ("AutoModelForCausalLM", "AutoModel", *config["auto_map"])
        return [getattr(transformers, name) for name in names if name in config["auto_map"] and hasattr(transformers, name)]
    for name in config.get("architectures") or ():
        with suppress(AttributeError):
            return [_class_named(name)]
    causal = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    first = [transformers.AutoModelForCausalLM] if config["model_type"] in causal else []
    return [*first, transformers.AutoModel]


def _class_named(name: object) -> Any:
    """The model class of transformers with this name.

    Raises:
        AttributeError: if there is none.
    """
    transformers = _transformers()
    found = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise AttributeError(f"no model is named {shown_bare(name)}")
    return found


def _from_pretrained(directory: Path, model_classes: Sequence[Any], *, trust: bool) -> nn.Module:
    transformers = _transformers()
    complaint = f"{directory} names no model class that transformers {transformers.__version__} knows: upgrade transformers"
    for model_class in model_classes:
        try:
            module, report = model_class.from_pretrained(
                directory, dtype="auto", local_files_only=True, trust_remote_code=trust, output_loading_info=True
            )
        except Exception as error:  # any failure in transformers is caused by the directory
            raise ModelError(f"{directory} cannot be loaded by transformers ({_reason(error)}): download the model again") from error
        if not report["missing_keys"]:
            loaded: nn.Module = module.eval()
            return loaded
        missing = listed(sorted(report["missing_keys"]), _SHOWN)
        complaint = f"{directory} lacks weights of {type(module).__name__}: {missing}; download the model again"
    raise ModelError(complaint)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppresses progress bars and remarks of transformers, and of torchao, which it imports if installed."""
    own = transformers.utils.logging
    verbosity, bars = own.get_verbosity(), own.is_progress_bar_enabled()
    others = {name: logging.getLogger(name).level for name in _REMARKING}
    own.set_verbosity_error()
    own.disable_progress_bar()
    for name in others:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        own.set_verbosity(verbosity)
        if bars:
            own.enable_progress_bar()
        for name, level in others.items():
            logging.getLogger(name).setLevel(level)


def _described(module: nn.Module) -> dict[str, Any]:
    """What config.json lacks: the class, its dtype, and the tensors that have a different dtype."""
    dtype = next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), torch.float32)
    others = {
        name: str(tensor.dtype) for name, tensor in module.state_dict().items() if tensor.is_floating_point() and tensor.dtype != dtype
    }
    return {"architecture": type(module).__name__, "dtype": str(dtype).removeprefix("torch."), "tensor_dtypes": others}


def _dtype(name: object) -> torch.dtype:
    dtype = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ModelError(f"'{shown_bare(name)}' is not a dtype of torch: write the artifact again")
    return dtype


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
