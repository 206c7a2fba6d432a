"""The layers of a model: every weight that its forward pass uses, found by watching one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.errors import DataError, ModelError
from mpq.models.layers.dispatch_watch import Use, Watch, is_norm
from mpq.models.layers.outside_state import outside_tensors
from mpq.models.layers.state_tensors import aliases_of, state_of, tied_names
from mpq.models.memory.regions import Region, region
from mpq.models.memory.storage_tracker import pointer
from mpq.models.running.forward import forward
from mpq.records.layer import Layer

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_BIAS = re.compile(r"(^|[._])bias$")


@dataclass(frozen=True)
class Discovery:
    """The parts of a model; every storage of its state dict appears once, in `layers`, `unreached` or `rest`.

    Args:
        layers: the searchable weights, in order of first use in the forward pass.
        unreached: weights that the data never reached, for example an expert without tokens.
        rest: canonical names of all other tensors, in the order of the state dict: norms, biases, buffers.
        aliases: other names of tied tensors, each with its canonical name.
        stacks: layers that are stacks of matrices, such as experts, of which the data reached only some: how many, and of how many.
    """

    layers: tuple[Layer, ...]
    unreached: tuple[Layer, ...]
    rest: tuple[str, ...]
    aliases: dict[str, str]
    stacks: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Weight:
    """A tensor that may be a layer: its names, the canonical one first, the module that owns it, and whether it is a buffer."""

    names: tuple[str, ...]
    tensor: Tensor
    owner: nn.Module
    is_buffer: bool


def discover(module: nn.Module, batches: Iterable[Batch]) -> Discovery:
    """The layers of `module`, found by running it on `batches` without gradients.

    Raises:
        ModelError: if no weight is used, the state dict contains other objects than tensors, or a weight is float64 or shares memory with a
        tensor of a different shape. DataError: if there is no batch, or the module does not accept it.
    """
    state = state_of(module)
    weights = _weights(module, state)
    versions = [weight.tensor._version if weight.is_buffer and not weight.tensor.is_inference() else 0 for weight in weights]
    watch = _watched(module, [weight.tensor for weight in weights], batches)
    uses = {number: list(found.values()) for number, found in watch.uses.items()}
    kept = {id(weight.tensor) for weight, version in zip(weights, versions, strict=True) if _is_kept(weight, module, version)}
    uses = {number: found for number, found in uses.items() if id(weights[number].tensor) in kept}
    heaviest = {number: _heaviest(weights[number], found) for number, found in uses.items()}
    layers = [_layer(weights[number], use, found) for number, found in uses.items() if (use := heaviest[number])]
    unreached = [_unreached(weight, weights, heaviest) for number, weight in enumerate(weights) if number not in uses and _is_layer(weight)]
    if not layers and (outside := outside_tensors(module)):
        raise ModelError(
            f"the model has no weight to quantize: its matrices are not in the state dict ('{next(iter(outside))}', …): "
            "make them parameters or buffers, and save TorchScript without torch.jit.freeze"
        )
    found = _discovery(state, layers, unreached)
    parts = {weights[number].names[0]: len(read) for number, read in watch.parts.items()}
    reached = {layer.name: (parts.get(layer.parameters[0], layer.shape[0]), layer.shape[0]) for layer in found.layers}
    return replace(found, stacks={name: counts for name, counts in reached.items() if counts[0] < counts[1]})


def discovery_of(module: nn.Module, use_by: Callable[[nn.Module], Use]) -> Discovery:
    """The layers of `module` without running it: all its weights, with the use that `use_by` gives for the module that owns it.

    Raises:
        ModelError: as `discover`.
    """
    state = state_of(module)
    return _discovery(state, [_layer(weight, use_by(weight.owner), ()) for weight in _weights(module, state) if _is_layer(weight)], [])


def _discovery(state: dict[str, Tensor], layers: Sequence[Layer], unreached: Sequence[Layer]) -> Discovery:
    if not layers and (wide := next((name for name, tensor in state.items() if tensor.dtype == torch.float64 and tensor.ndim > 1), None)):
        raise ModelError(f"'{wide}' is float64: convert the model with .float() first")
    if not layers:
        raise ModelError(
            "the model has no weight to quantize: its forward pass consumes no floating-point parameter of two or more dimensions"
        )
    _check_overlaps([*layers, *unreached], state)
    searched = {layer.parameters[0] for layer in [*layers, *unreached]}
    aliases = aliases_of(state)
    rest = tuple(name for name in state if name not in searched and name not in aliases)
    return Discovery(_named(layers, state), _named(unreached, state), rest, aliases)


def _watched(module: nn.Module, weights: Sequence[Tensor], batches: Iterable[Batch]) -> Watch:
    """The watch that saw all batches."""
    watch, count = Watch(module, weights), 0
    for batch in batches:
        with watch.active():
            forward(module, batch)
        count += 1
    if not count:
        raise DataError("there is no data to run the model on: give at least one sample")
    return watch


def _weights(module: nn.Module, state: dict[str, Tensor]) -> list[_Weight]:
    """Every floating-point parameter and persistent buffer with two or more dimensions, once per storage."""
    owners = dict(module.named_modules(remove_duplicate=False))
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    tensors: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    found = []
    for names in tied_names({name: tensor for name, tensor in tensors.items() if name in state}):
        tensor, is_buffer = tensors[names[0]], parameters.isdisjoint(names)
        if tensor.dim() > 1 and tensor.numel() and tensor.dtype in DTYPES:
            found.append(_Weight(names, tensor, owners[names[0].rpartition(".")[0]], is_buffer))
    return found


def _is_kept(weight: _Weight, module: nn.Module, version: int) -> bool:
    """Whether a forward pass left a weight unchanged; a buffer that it changes is state, not a weight."""
    if not weight.is_buffer or weight.tensor.is_inference():
        return True
    now = dict(module.named_buffers(remove_duplicate=False)).get(weight.names[0])
    return now is not None and pointer(now) == pointer(weight.tensor) and weight.tensor._version == version


def _heaviest(weight: _Weight, uses: Sequence[Use]) -> Use | None:
    """The use that determines the layout of the weight; None for the parameters of norms, for biases and for vectors."""
    found = [use for use in uses if use.operator != "norm"]
    if not found:
        return None
    use = min(found, key=lambda use: use.rank)
    if use.operator == "other" and not _is_layer(weight):
        return None
    if weight.is_buffer and (use.operator == "other" or not all(each.on_data for each in found)):
        return None  # a position table that is added, or a mask of a weight
    return None if use.operator in ("other", "embedding") and _BIAS.search(weight.names[0]) else use


def _is_layer(weight: _Weight) -> bool:
    """Whether a parameter without a known matrix product may be a layer."""
    wide = sum(size > 1 for size in weight.tensor.shape) > 1
    return wide and not weight.is_buffer and not is_norm(weight.owner) and not _BIAS.search(weight.names[0])


def _layer(weight: _Weight, use: Use, uses: Sequence[Use]) -> Layer:
    consumers = dict.fromkeys(name for other in uses if other.on_data == use.on_data for name in other.consumers)
    return Layer(
        name=weight.names[0].removesuffix(".weight"),
        parameters=weight.names,
        shape=tuple(weight.tensor.shape),
        axes=use.axes,
        dtype=DTYPES[weight.tensor.dtype],
        operator=use.operator,
        consumers=tuple(consumers),
        groups=use.groups,
    )


def _unreached(weight: _Weight, weights: Sequence[_Weight], heaviest: dict[int, Use | None]) -> Layer:
    """The unused layer, with the layout of a used one in the same kind of module, else [output, ...]."""
    use = Use("other", (0,), on_data=False)
    for number, known in heaviest.items():
        if known is not None and _kind(weights[number]) == _kind(weight) and not weight.tensor.shape[0] % known.groups:
            use = replace(known, consumers={})
            break
    return _layer(weight, use, ())


def _kind(weight: _Weight) -> tuple[type, str, int]:
    return type(weight.owner), weight.names[0].rpartition(".")[2], weight.tensor.dim()


def _named(layers: Sequence[Layer], state: dict[str, Tensor]) -> tuple[Layer, ...]:
    """`layers`; a layer keeps ".weight" in its name if the short name belongs to another tensor."""
    return tuple(replace(layer, name=layer.parameters[0]) if layer.name in state else layer for layer in layers)


def _check_overlaps(layers: Sequence[Layer], state: dict[str, Tensor]) -> None:
    """Refuse a layer that shares a part with another tensor, or all in a different shape: quantizing one would change the other."""
    places: dict[int, list[tuple[str, Region]]] = {}
    for name, tensor in state.items():
        if tensor.numel() and pointer(tensor):
            places.setdefault(pointer(tensor), []).append((name, region(tensor)))
    for layer in layers:
        own = region(state[layer.parameters[0]])
        for name, place in places.get(pointer(state[layer.parameters[0]]), []):
            if name not in layer.parameters and place.meeting(own) is not None:
                raise ModelError(
                    f"'{layer.parameters[0]}' and '{name}' overlap in memory without being the same tensor: separate them with .clone()"
                )
