"""A folder of compressed-tensors: words of 32 bits, scales, and a config that says which layers are packed and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mpq.errors import FormatError
from mpq.export.stored.base import Held, Place, as_values, integer_scheme
from mpq.reading.documents import read_json
from mpq.tensors.packing import unpack
from mpq.tensors.quantized import QuantizedWeight

_PARTS = (".weight_packed", ".weight_scale", ".weight_shape")
_WORD = 32
_REMEDY = "run `mpq export` again"


def read(path: Path, places: Iterable[Place]) -> Held:
    """The contents of a folder: packed layers named in its config, and all others as values."""
    return held_by(_tensors(path), groups_of(path), places)


def held_by(state: Mapping[str, Tensor], groups: Mapping[str, Mapping[str, Any]], places: Iterable[Place]) -> Held:
    """The contents of named tensors, in a file or in a loaded model.

    Args:
        state: the tensors.
        groups: the config's settings for the weights of each packed layer.
        places: where layers should be.
    """
    tensors = dict(state)
    weights: dict[str, QuantizedWeight] = {}
    for place in places:
        packed, scale = (tensors.get(f"{place.name}.weight_{part}") for part in ("packed", "scale"))
        if place.name in groups and packed is not None and scale is not None:
            weights[place.name] = _weight(packed, scale, groups[place.name], place.matrix)
        elif (whole := as_values(tensors, place, f"{place.name}.weight")) is not None:
            weights[place.name] = whole[1]
            tensors.pop(whole[0])
    others = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and not name.endswith(_PARTS)}
    return Held(weights, others)


def config_of(path: Path) -> dict[str, Any]:
    """The contents of config.json.

    Raises:
        FormatError: if it cannot be read.
    """
    found = read_json(path / "config.json", error=FormatError, absent="name a folder that `mpq export` wrote", remedy=_REMEDY).value
    if not isinstance(found, dict):
        raise FormatError(f"{path / 'config.json'} is not a mapping: {_REMEDY}")
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    try:
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} holds a damaged file ({error}): {_REMEDY}") from error
    return found


def groups_of(path: Path) -> dict[str, Mapping[str, Any]]:
    """The config's settings for the weights of each layer that it names."""
    groups = (config_of(path).get("quantization_config") or {}).get("config_groups") or {}
    return {name: group.get("weights") or {} for group in groups.values() for name in group.get("targets") or ()}


def _weight(packed: Tensor, scale: Tensor, said: Mapping[str, Any], matrix: tuple[int, int]) -> QuantizedWeight:
    bits = int(said.get("num_bits") or 8)
    rows, columns = len(packed), matrix[1]
    held = packed.shape[1] * _WORD // bits
    codes = unpack(packed.contiguous().view(-1).view(torch.uint8), bits, rows * held).view(rows, held)[:, :columns]
    size = int(said.get("group_size") or columns)
    scheme = integer_scheme(bits, groups=scale.shape[1], columns=columns, group_size=size, symmetric=True)
    return QuantizedWeight(scheme, (rows, codes.shape[1]), codes.contiguous(), scale)
