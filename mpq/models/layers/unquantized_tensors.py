"""The inventory: every tensor of a model that no scheme changes, and what it costs in an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mpq.errors import ModelError
from mpq.formats.stored import PARTS
from mpq.models.layers.state_tensors import aliases_of, state_of
from mpq.models.running.habits import put_back
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import PROGRAM, rest_of
from mpq.records.artifact_layout import TensorEntry, entry
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import Rest
from mpq.tensors.dtypes import SAFETENSORS_DTYPES, as_stored


def rest_tensors(model: LoadedModel, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Every tensor stored bit for bit, by name: what is not one of `layers`, each storage once, then the program."""
    put_back(model.module)
    state = state_of(model.module)
    left_out = {name for layer in layers for name in layer.parameters} | set(aliases_of(state))
    found = {name: as_stored(tensor.detach()) for name, tensor in state.items() if name not in left_out}
    if model.program is not None:
        found[PROGRAM] = torch.frombuffer(bytearray(model.program), dtype=torch.uint8)
    return found


def inventory(model: LoadedModel, layers: Sequence[Layer], *, source: Mapping[str, Any], quantizer: str) -> Rest:
    """The constant part of an artifact of `model` whose searched layers are `layers`.

    Raises:
        ModelError: if a tensor has a dtype that safetensors does not know, or the name of a part of a layer.
    """
    tensors = rest_tensors(model, layers)
    _check_names(layers, tensors)
    parameters = dict(model.module.named_parameters())
    kept = {name: tensor for name, tensor in tensors.items() if name != PROGRAM}
    return rest_of(
        layers,
        [tensor_entry(name, tensor) for name, tensor in tensors.items()],
        model=source,
        quantizer=quantizer,
        aliases=aliases_of(state_of(model.module)),
        config=model.config or {},
        weights=sum(parameters[name].numel() for name in kept if name in parameters),
        original_bytes=sum(tensor.numel() * tensor.element_size() for tensor in kept.values()),
    )


def _check_names(layers: Sequence[Layer], tensors: Mapping[str, Tensor]) -> None:
    for layer in layers:
        taken = next((name for part in PARTS if (name := f"{layer.name}.{part}") in tensors), None)
        if taken is not None:
            raise ModelError(
                f"tensor '{taken}' would be stored under the name of a part of layer '{layer.name}': "
                "rename it, or leave the layer out with --ignore"
            )


def tensor_entry(name: str, tensor: Tensor) -> TensorEntry:
    """The entry of a tensor stored as it is."""
    dtype = SAFETENSORS_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ModelError(
            f"tensor '{name}' has dtype {tensor.dtype}, which an artifact cannot hold: convert it to a floating or integer dtype"
        )
    return entry(name, dtype, tuple(tensor.shape))


def source_of(model: LoadedModel, path: str | None) -> dict[str, Any]:
    """What plans and artifacts say of the source model; `path` is how to find it from their folder."""
    source: dict[str, Any] = {} if path is None else {"path": path}
    source |= {"sha256": model.sha256, "kind": model.kind}
    chosen = {"factory": model.factory, "checkpoint_key": model.checkpoint_key, "allow_unexpected": model.allow_unexpected or None}
    return source | {name: value for name, value in chosen.items() if value is not None}
