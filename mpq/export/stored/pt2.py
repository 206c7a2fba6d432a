"""A torch.export archive of packed weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from mpq.errors import FormatError
from mpq.export.stored.base import Held, Place, as_values, values
from mpq.models.sources.load import load_model
from mpq.tensors.quantized import QuantizedWeight, unpack_weight


def read(path: Path, places: Iterable[Place]) -> Held:
    """The contents of an archive."""
    return held_by(load_model(path).module, places)


def held_by(module: nn.Module, places: Iterable[Place]) -> Held:
    """The contents of a loaded program."""
    state = module.state_dict()
    weights: dict[str, QuantizedWeight] = {}
    taken: set[str] = set()
    for place in places:
        names = {part.part: f"{place.name}__{part.part}" for part in place.scheme.stored(place.matrix)}
        parts = {part: state[name] for part, name in names.items() if name in state}
        taken |= set(names.values())
        found = _weight(place, parts) if len(parts) == len(names) else None
        whole = as_values(state, place, f"{place.name}__values", f"{place.name}__weight")
        if found is None and whole is not None:
            taken.add(whole[0])
            found = whole[1]
        if found is not None:
            weights[place.name] = found
    others = {name: tensor for name, tensor in state.items() if name not in taken and tensor.is_floating_point()}
    return Held(weights, others)


def _weight(place: Place, parts: Mapping[str, Tensor]) -> QuantizedWeight | None:
    """The weight of stored parts, with one group per scale; None if they cannot be a weight."""
    scheme, columns = place.scheme, place.matrix[1]
    if "values" in parts:
        return values(parts["values"], place.matrix)
    groups = parts["scales"].shape[-1]
    if not scheme.small_scales and groups != scheme.groups(columns):
        scheme = replace(scheme, group_size=-(-columns // groups))
    stored = {part.part: part.shape for part in scheme.stored(place.matrix)}
    cut = {part: tensor[: stored[part][0]] if tensor.ndim == 1 else tensor for part, tensor in parts.items()}
    try:
        return unpack_weight(cut, scheme, place.matrix)
    except FormatError:
        return None
