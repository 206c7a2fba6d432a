"""A GGUF file: blocks of 32 weights, with rows in llama.cpp's order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpq.errors import FormatError
from mpq.export.base import package
from mpq.export.gguf_blocks import BLOCK, scheme_of, unpack_blocks
from mpq.export.stored.base import Held, Place, values
from mpq.shown import first_line
from mpq.tensors.quantized import QuantizedWeight

_TABLE, _HEAD = "token_embd.weight", "output.weight"


def read(path: Path, places: Iterable[Place]) -> Held:
    """The contents of a file."""
    gguf = package("gguf", extra="gguf")
    try:
        tensors = {each.name: each for each in gguf.GGUFReader(path).tensors}
    except Exception as error:  # the reader raises many kinds of errors
        raise FormatError(f"{path} is not a GGUF file, or is damaged ({first_line(error)})") from error
    weights = {place.name: _weight(tensors[place.name]) for place in places if place.name in tensors}
    others = {name: _values(each) for name, each in tensors.items() if name not in weights and each.tensor_type.name in ("F16", "F32")}
    uses = {_TABLE: ("embedding",) if _HEAD in tensors else ("embedding", "head")}
    return Held(weights, others, {name: used for name, used in uses.items() if name in weights})


def _weight(tensor: Any) -> QuantizedWeight:
    matrix = (int(tensor.shape[1]), int(tensor.shape[0]))
    scheme = scheme_of(tensor.tensor_type.name)
    if scheme is None or scheme.is_float:
        return values(_values(tensor), matrix)
    codes, scales, minima = unpack_blocks(np.ascontiguousarray(tensor.data).view(np.uint8), scheme, matrix)
    if minima is None:
        return QuantizedWeight(scheme, matrix, torch.from_numpy(codes), torch.from_numpy(scales))
    blocks = codes.reshape(matrix[0], -1, BLOCK).astype(np.float32)
    return values(torch.from_numpy(blocks * scales[..., None].astype(np.float32) + minima[..., None].astype(np.float32)), matrix)


def _values(tensor: Any) -> torch.Tensor:
    if tensor.tensor_type.name == "BF16":
        return torch.from_numpy(np.array(tensor.data).view(np.uint8)).view(torch.bfloat16).float()
    return torch.from_numpy(np.array(tensor.data))
