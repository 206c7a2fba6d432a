"""Load: an artifact becomes a running model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mpq.activations.rounding import simulate
from mpq.errors import FormatError, MismatchError, ModelError, UsageError
from mpq.formats.stored import PARTS
from mpq.models.layers.state_tensors import aliases_of, state_of
from mpq.models.memory.malloc_trim import return_freed_memory
from mpq.models.memory.replaced_tensors import replace_tensor
from mpq.models.running.swap import tensor_of
from mpq.models.sources.inference_tensors import replace_inference_tensors
from mpq.models.sources.lazy_tensors import materialize, without_shape
from mpq.models.sources.rebuild import rebuild_module
from mpq.records.artifact import PROGRAM, ArtifactHeader
from mpq.records.artifact_files import artifact_files, read_header
from mpq.records.layer import Layer
from mpq.records.open_artifact import opened, parts_in, unpacking
from mpq.runtime.packed_weight import packed_weight
from mpq.tensors.dtypes import as_stored, from_stored
from mpq.tensors.matrix import from_matrix
from mpq.tensors.quantized import unpack_weight

_WRAPPERS = ("_orig_mod.", "module.")
_SOURCES = {"hf": "a Hugging Face folder with its own code", "export": "a torch.export archive that was trusted"}


def load(
    artifact: Path | str,
    model: nn.Module | None = None,
    *,
    packed: bool = False,
    dtype: torch.dtype | None = None,
    activations: bool = True,
) -> nn.Module:
    """The quantized model of an artifact, in eval mode.

    Args:
        artifact: path of the file, of the index of several files, or of their folder.
        model: a module of the same architecture, whose parameters are overwritten in place (replaced, if `packed` or with `dtype`) and
            which is returned. Not needed for torch.export and Hugging Face sources.
        packed: keep the layers packed in memory, as `PackedTensor` parameters that multiply on their codes (`mpq show --kernels` says
            how). Outputs are the same up to the order of sums. Without it the layers are ordinary tensors: the outputs that were
            measured, at the speed and in the memory of the original, and weights that can be written and trained.
        dtype: what the model computes in, for example torch.bfloat16, where the fastest packed kernels of most CPUs are: of all
            floating-point parameters and buffers in its state dict. None: as in the original. A module whose code, or whose exported
            graph, fixes another dtype fails when it is called.
        activations: round the tensors between layers that the plan makes integers, as a runtime that computes in integers does: in every
            call of the model, by fake quantization. False leaves them in floating point.

    Raises:
        UsageError: if `dtype` is not a floating-point one, `model` is no module, or the layers are to be packed in a model with integer
            activations.
        FormatError: if the file is missing, damaged, or from a newer version.
        ModelError: if the source needs `model` and none was given.
        MismatchError: if `model` has other tensors than the artifact.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise UsageError(f"a model cannot compute in {dtype}: give a floating-point dtype, for example torch.bfloat16")
    if model is not None and not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}, not a torch.nn.Module: give the module itself, or leave it out")
    path = Path(artifact)
    header = read_header(path)
    rounded = header.activations if activations else {}
    if packed and rounded:
        raise UsageError(f"{path} rounds activations, which packed layers do not: leave out packed, or load with activations=False")
    with _opened(artifact_files(path), path) as file:
        _check_parts(header, file, path)
        module = model if model is not None else _rebuilt(header, file, path, hollow=packed or dtype is not None)
        replace_inference_tensors(module)
        materialize(module, partial(_shape_in, header, file))
        if (lacking := without_shape(module)) is not None:
            raise MismatchError(f"tensor '{lacking}' is only in the model: give a module of the architecture that was quantized")
        _fill(module, header, file, path, packed=packed, dtype=dtype)
    if packed:
        return_freed_memory()  # the layers were unpacked on the way, one after another
    if module.training:
        with suppress(NotImplementedError):  # the module of an exported program has its mode fixed
            module.eval()
    return simulate(module, rounded)


def _rebuilt(header: ArtifactHeader, file: Any, path: Path, *, hollow: bool) -> nn.Module:
    kind = str(header.model.get("kind"))
    if kind == "hf" and header.config:
        return rebuild_module(kind, program=None, config=header.config, hollow=hollow, most=_values(header, file))
    if PROGRAM in file.keys():  # noqa: SIM118
        return rebuild_module(kind, program=file.get_tensor(PROGRAM).numpy().tobytes(), config=None, hollow=hollow)
    source = _SOURCES.get(kind, f"a {kind} model")
    raise ModelError(f"{path} holds weights only, its source is {source}: build the module and call mpq.load(artifact, module)")


def _shape_in(header: ArtifactHeader, file: Any, name: str) -> tuple[int, ...] | None:
    """The shape of a tensor of the model; None if the artifact does not have it."""
    source = header.aliases.get(name, name)
    layer = next((layer for layer in header.layers if layer.parameters[0] == source), None)
    if layer is not None:
        return layer.shape
    return tuple(file.get_slice(source).get_shape()) if source in file.keys() else None  # noqa: SIM118


def _values(header: ArtifactHeader, file: Any) -> int:
    """Number of weights and other values in the artifact."""
    parts = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS}
    others: Iterator[int] = (math.prod(file.get_slice(name).get_shape()) for name in file.keys() if name not in parts)  # noqa: SIM118
    return sum(layer.weights for layer in header.layers) + sum(others)


def _check_parts(header: ArtifactHeader, file: Any, path: Path) -> None:
    """Refuse an artifact whose layers are not stored in the shapes of their schemes."""
    held = set(file.keys())
    for layer in header.layers:
        for part in header.schemes[layer.name].stored(layer.matrix):
            name = f"{layer.name}.{part.part}"
            if name not in held or tuple(file.get_slice(name).get_shape()) != part.shape:
                raise FormatError(f"{path} is damaged ('{name}' is missing or has another shape): run `mpq apply` again")


def _fill(module: nn.Module, header: ArtifactHeader, file: Any, path: Path, *, packed: bool, dtype: torch.dtype | None) -> None:
    """Overwrite or replace every tensor of `module`, after checking all of them."""
    layers = {layer.parameters[0]: layer for layer in header.layers}
    parts = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS}
    held = (set(file.keys()) - {PROGRAM} - parts) | set(layers)
    state = state_of(module)
    ties = _ties(module)
    wrapper = _wrapper(held, state)
    tied_to = {name: [wrapper + tied for tied in ties.get(name, ())] for name in state}
    sources = {
        name: header.aliases.get(wrapper + name) or next((tied for tied in tied_to[name] if tied in held), wrapper + name) for name in state
    }
    _check_names(set(sources.values()), held, path)
    for other, name in aliases_of(state).items():
        if sources[other] != sources[name]:
            raise MismatchError(f"'{other}' and '{name}' are one tensor in the model and two in {path}: give each its own")
    for name, source in sources.items():
        shape = layers[source].shape if source in layers else tuple(file.get_slice(source).get_shape())
        own = tuple(as_stored(state[name]).shape)
        if own != shape:
            raise MismatchError(f"tensor '{name}' has shape {list(shape)} in the artifact and {list(own)} in the model")
    with torch.no_grad():
        if packed or dtype is not None:
            weight = _packed if packed else _dense
            made = dict[str, Tensor]()
            for source, layer in layers.items():
                with unpacking(path, layer.name):
                    made[source] = weight(layer, header, file, dtype or getattr(torch, layer.dtype))
            dtypes = {source: state[name].dtype for name, source in sources.items()}
            others = {source: from_stored(file.get_tensor(source), dtypes[source]) for source in held - set(layers)}
            restored = dtypes if header.rest_dtype is not None else {}
            _replace(module, sources, made | {source: _cast(tensor, dtype or restored.get(source)) for source, tensor in others.items()})
            return
        for name, source in sources.items():
            with unpacking(path, source):
                value = (
                    _weight(layers[source], header, file) if source in layers else from_stored(file.get_tensor(source), state[name].dtype)
                )
            tensor_of(module, name).data.copy_(value)


def _wrapper(held: set[str], state: Mapping[str, Tensor]) -> str:
    """The prefix of the artifact's names if torch.compile or DataParallel wrapped the model that was quantized, and not the given one."""
    if held == state.keys():
        return ""
    return next((each for each in _WRAPPERS if all(name.startswith(each) and name.removeprefix(each) in state for name in held)), "")


def _ties(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """All names of each parameter, its own first; a checkpoint may store a tied parameter under any of them."""
    names: dict[int, list[str]] = {}
    parameters = list(module.named_parameters(remove_duplicate=False))  # kept alive, or an id could be reused
    for name, parameter in parameters:
        names.setdefault(id(parameter), []).append(name)
    return {name: (name, *group) for group in names.values() for name in group}


def _replace(module: nn.Module, sources: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Replace the tensors of `module` by `tensors`; tied ones stay one parameter."""
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    made: dict[str, Tensor] = {}
    for name, source in sources.items():
        if name not in buffers:
            made.setdefault(source, nn.Parameter(tensors[source], requires_grad=False))
        replace_tensor(module, name, made.get(source, tensors[source]))


def _check_names(wanted: set[str], held: set[str], path: Path) -> None:
    strays = sorted(wanted ^ held)
    if strays:
        where = "the model" if strays[0] in wanted else str(path)
        raise MismatchError(f"tensor '{strays[0]}' is only in {where}: give a module of the architecture that was quantized")


def _weight(layer: Layer, header: ArtifactHeader, file: Any) -> Tensor:
    scheme = header.schemes[layer.name]
    parts = parts_in(file, layer, scheme)
    return from_matrix(unpack_weight(parts, scheme, layer.matrix).dequantize(), layer.shape, layer.axes, layer.groups)


def _dense(layer: Layer, header: ArtifactHeader, file: Any, dtype: torch.dtype) -> Tensor:
    return _weight(layer, header, file).to(dtype)


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy, since a view would keep the file open; cast to the wanted dtype, except for integers."""
    return tensor.to(dtype if tensor.is_floating_point() else None, copy=True)


def _packed(layer: Layer, header: ArtifactHeader, file: Any, dtype: torch.dtype) -> Tensor:
    scheme = header.schemes[layer.name]
    # copied, since views would keep the file open as long as the model lives
    parts = {name: part.clone() for name, part in parts_in(file, layer, scheme).items()}
    return packed_weight(parts, layer, scheme, dtype)


@contextmanager
def _opened(files: Sequence[Path], path: Path) -> Iterator[Any]:
    try:
        with opened(files) as file:
            yield file
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise FormatError(f"{path} is damaged ({' '.join(str(error).split())}): run `mpq apply` again") from error
