"""Load: an artifact becomes a running model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mpq.errors import FormatError, MismatchError, ModelError
from mpq.models.rebuild import rebuild_module
from mpq.models.replace import replace_tensor
from mpq.models.state import aliases_of, state_of
from mpq.models.swap import tensor_of
from mpq.records.artifact import PROGRAM, ArtifactHeader, read_artifact_header
from mpq.records.layer import Layer
from mpq.schemes import PARTS
from mpq.tensors.kernels.choose import codes_for
from mpq.tensors.matrix import from_matrix
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight, unpack_weight


def load(artifact: Path | str, model: nn.Module | None = None, *, packed: bool = False) -> nn.Module:
    """The quantized model of an artifact, in eval mode.

    Args:
        artifact: path of the file.
        model: a module of the same architecture, whose parameters are overwritten in place (replaced, if `packed`) and which is
            returned. Not needed for torch.export and Hugging Face sources.
        packed: keep the layers packed in memory, as `PackedTensor` parameters that multiply on their codes (`mpq show --kernels` says
            how). Outputs are the same up to the order of sums. Without it the layers are ordinary tensors: the outputs that were
            measured, at the speed and in the memory of the original, and weights that can be written and trained.

    Raises:
        FormatError: if the file is missing, damaged, or from a newer version.
        ModelError: if the source needs `model` and none was given.
        MismatchError: if `model` has other tensors than the artifact.
    """
    path = Path(artifact)
    header = read_artifact_header(path)
    with _opened(path) as file:
        module = model if model is not None else _rebuilt(header, file, path, hollow=packed)
        _fill(module, header, file, path, packed=packed)
    if module.training:
        with suppress(NotImplementedError):  # the module of an exported program has its mode fixed
            module.eval()
    return module


def _rebuilt(header: ArtifactHeader, file: Any, path: Path, *, hollow: bool) -> nn.Module:
    kind = str(header.model.get("kind"))
    if kind == "hf":
        return rebuild_module(kind, program=None, config=header.config, hollow=hollow)
    if PROGRAM in file.keys():  # noqa: SIM118
        return rebuild_module(kind, program=file.get_tensor(PROGRAM).numpy().tobytes(), config=None, hollow=hollow)
    raise ModelError(f"{path} holds weights only, its source is a {kind} model: build the module and call mpq.load(artifact, module)")


def _fill(module: nn.Module, header: ArtifactHeader, file: Any, path: Path, *, packed: bool) -> None:
    """Overwrite or replace every tensor of `module`; everything is checked before the first one."""
    layers = {layer.parameters[0]: layer for layer in header.layers}
    parts = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS}
    held = (set(file.keys()) - {PROGRAM} - parts) | set(layers)
    state = state_of(module)
    sources = {name: header.aliases.get(name, name) for name in state}
    _check_names(set(sources.values()), held, path)
    for other, name in aliases_of(state).items():
        if sources[other] != sources[name]:
            raise MismatchError(f"'{other}' and '{name}' are one tensor in the model and two in {path}: give each its own")
    for name, source in sources.items():
        shape = layers[source].shape if source in layers else tuple(file.get_slice(source).get_shape())
        if tuple(state[name].shape) != shape:
            raise MismatchError(f"tensor '{name}' has shape {list(shape)} in the artifact and {list(state[name].shape)} in the model")
    with torch.no_grad():
        if packed:
            _replace(
                module,
                state,
                sources,
                lambda source: _packed(layers[source], header, file) if source in layers else file.get_tensor(source),
            )
            return
        for name, source in sources.items():
            value = _weight(layers[source], header, file) if source in layers else file.get_tensor(source)
            tensor_of(module, name).data.copy_(value)


def _replace(module: nn.Module, state: Mapping[str, Tensor], sources: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
    """Put what `read` gives in the place of every tensor of `module`; tied ones stay tied."""
    made: dict[str, Tensor] = {}
    for name, source in sources.items():
        if source not in made:
            value = read(source)
            made[source] = nn.Parameter(value.to(state[name].dtype), requires_grad=False)
        replace_tensor(module, name, made[source])


def _check_names(wanted: set[str], held: set[str], path: Path) -> None:
    strays = sorted(wanted ^ held)
    if strays:
        where = "the model" if strays[0] in wanted else str(path)
        raise MismatchError(f"tensor '{strays[0]}' stands only in {where}: give a module of the architecture that was quantized")


def _quantized(layer: Layer, header: ArtifactHeader, file: Any) -> QuantizedWeight:
    scheme = header.schemes[layer.name]
    parts = {part.part: file.get_tensor(f"{layer.name}.{part.part}") for part in scheme.stored(layer.matrix)}
    return unpack_weight(parts, scheme, layer.matrix)


def _weight(layer: Layer, header: ArtifactHeader, file: Any) -> Tensor:
    return from_matrix(_quantized(layer, header, file).dequantize(), layer.shape, layer.axes)


def _packed(layer: Layer, header: ArtifactHeader, file: Any) -> Tensor:
    weight, dtype = _quantized(layer, header, file), getattr(torch, layer.dtype)
    if FLOAT_DTYPES.get(weight.scheme.format) == dtype:
        return from_matrix(weight.codes, layer.shape, layer.axes)
    return PackedTensor(codes_for(weight, len(layer.shape)), layer.shape, layer.axes, dtype)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is damaged ({' '.join(str(error).split())}): run `mpq apply` again") from error
