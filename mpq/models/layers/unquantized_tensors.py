"""The inventory: every unquantized tensor of a model, and its bytes in an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.formats.floats import REST_DTYPES
from mpq.formats.stored import PARTS
from mpq.models.layers.discover import DTYPES
from mpq.models.layers.state_tensors import aliases_of, state_of
from mpq.models.running.habits import put_back
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import PROGRAM, rest_of
from mpq.records.artifact_layout import TensorEntry, entry
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import Rest
from mpq.shown import listed
from mpq.tensors.dtypes import SAFETENSORS_DTYPES, as_stored
from mpq.tensors.narrow import narrow_dtype, narrowed, overflow, refusal


def kept_tensors(module: nn.Module, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The model's tensors that are not one of `layers`, by name, each storage once."""
    put_back(module)
    state = state_of(module)
    left_out = {name for layer in layers for name in layer.parameters} | set(aliases_of(state))
    return {name: tensor.detach() for name, tensor in state.items() if name not in left_out}


def dtype_notes(module: nn.Module, layers: Sequence[Layer], total: int) -> list[str]:
    """At most one line for people: matrices outside `layers` that their dtype excludes from the search, and their share of `total` bytes.

    Integers are listed only if they take a hundredth of the bytes: they may be codes of weights, where small ones are indices.
    """
    found = {name: tensor for name, tensor in kept_tensors(module, layers).items() if _is_foreign(tensor)}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in found.items()}
    named = [name for name, tensor in found.items() if tensor.is_floating_point() or tensor.is_complex() or 100 * sizes[name] >= total]
    if not named:
        return []
    taken = sum(sizes[name] for name in named)
    shown = listed([f"{name} ({str(found[name].dtype).removeprefix('torch.')})" for name in named], 3)
    return [f"not searched because of their dtype, but stored unchanged: {shown} ({taken:,} bytes, {taken / total:.1%} of all)"]


def _is_foreign(tensor: Tensor) -> bool:
    return tensor.dtype not in (*DTYPES, torch.bool) and sum(size > 1 for size in tensor.shape) > 1


def rounded_tensors(module: nn.Module, layers: Sequence[Layer], dtype: str | None) -> dict[str, Tensor]:
    """The tensors outside `layers` after storage in `dtype`, converted back to their own dtypes; only those that become smaller.

    Raises:
        NumericsError: if `dtype` cannot represent a value as a finite number.
    """
    kept = kept_tensors(module, layers) if dtype is not None else {}
    return {
        name: narrowed(tensor, dtype, name).to(tensor.dtype)
        for name, tensor in kept.items()
        if narrow_dtype(tensor.dtype, dtype) != tensor.dtype
    }


def rest_tensors(model: LoadedModel, layers: Sequence[Layer], dtype: str | None = None) -> dict[str, Tensor]:
    """Every unquantized tensor in its stored form, by name: all tensors outside `layers`, then the program.

    Args:
        model: the model.
        layers: the searched layers.
        dtype: dtype for floating-point tensors where it is smaller than their own; None stores all tensors bit for bit.

    Raises:
        NumericsError: if `dtype` cannot represent a value as a finite number.
    """
    kept = kept_tensors(model.module, layers)
    found = {name: as_stored(narrowed(tensor, dtype, name)) for name, tensor in kept.items()}
    if model.program is not None:
        found[PROGRAM] = torch.frombuffer(bytearray(model.program), dtype=torch.uint8)
    return found


def inventory(model: LoadedModel, layers: Sequence[Layer], *, source: Mapping[str, Any], quantizer: str, dtype: str | None = None) -> Rest:
    """The constant part of an artifact of `model` with the searched layers `layers`; no values are read.

    Args:
        model: the model.
        layers: the searched layers.
        source: the artifact's facts about the model.
        quantizer: the quantizer's name in the artifact.
        dtype: dtype for floating-point tensors where it is smaller than their own. Raises: ModelError: if a tensor has a dtype that
        safetensors does not know, or the name of a part of a layer.
    """
    tensors, own = rest_tensors(model, layers), kept_tensors(model.module, layers)
    real = {name for name, tensor in own.items() if tensor.is_floating_point()}
    _check_names(layers, tensors)
    parameters = dict(model.module.named_parameters())
    kept = {name: tensor for name, tensor in tensors.items() if name != PROGRAM}
    return rest_of(
        layers,
        [tensor_entry(name, tensor, dtype if name in real else None) for name, tensor in tensors.items()],
        model=source,
        quantizer=quantizer,
        aliases=aliases_of(state_of(model.module)),
        config=model.config or {},
        weights=sum(parameters[name].numel() for name in kept if name in parameters),
        original_bytes=sum(tensor.numel() * tensor.element_size() for tensor in kept.values()),
        dtype=dtype,
    )


def rest_options(model: LoadedModel, layers: Sequence[Layer], *, source: Mapping[str, Any], quantizer: str) -> dict[str, Rest | str]:
    """The constant part with its floating-point tensors in each smaller dtype, or why a dtype cannot represent them; dtypes that save
    nothing are left out.
    """
    kept, found = kept_tensors(model.module, layers), dict[str, Rest | str]()
    for dtype in REST_DTYPES:
        smaller = {name: tensor for name, tensor in kept.items() if narrow_dtype(tensor.dtype, dtype) != tensor.dtype}
        lost = next(((name, value) for name, tensor in smaller.items() if (value := overflow(tensor, dtype)) is not None), None)
        if smaller:
            whole = inventory(model, layers, source=source, quantizer=quantizer, dtype=dtype)
            found[dtype] = whole if lost is None else refusal(*lost, dtype)
    return found


def _check_names(layers: Sequence[Layer], tensors: Mapping[str, Tensor]) -> None:
    for layer in layers:
        taken = next((name for part in PARTS if (name := f"{layer.name}.{part}") in tensors), None)
        if taken is not None:
            raise ModelError(
                f"tensor '{taken}' would be stored under the name of a part of layer '{layer.name}': "
                "rename it, or leave the layer out with --ignore"
            )


def tensor_entry(name: str, tensor: Tensor, dtype: str | None = None) -> TensorEntry:
    """The entry of an unquantized tensor, stored in `dtype` if that is smaller."""
    stored = SAFETENSORS_DTYPES.get(narrow_dtype(tensor.dtype, dtype))
    if stored is None:
        raise ModelError(
            f"tensor '{name}' has dtype {tensor.dtype}, which an artifact cannot hold: convert it to a floating or integer dtype"
        )
    return entry(name, stored, tuple(tensor.shape))


def source_of(model: LoadedModel, path: str | None) -> dict[str, Any]:
    """The facts about the source model in plans and artifacts; `path` is relative to their folder."""
    source: dict[str, Any] = {} if path is None else {"path": path}
    source |= {"sha256": model.sha256, "kind": model.kind}
    chosen = {"factory": model.factory, "checkpoint_key": model.checkpoint_key, "allow_unexpected": model.allow_unexpected or None}
    return source | {name: value for name, value in chosen.items() if value is not None}
