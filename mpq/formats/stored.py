"""Stored tensors: the parts of a weight in a file, and their bytes."""

from __future__ import annotations

import math
from typing import NamedTuple

COMMON_ROWS = "common_rows"  # a bit for each row: whether it is the common one
PARTS = ("values", "codes", "scales", "zero_points", COMMON_ROWS)  # that `Scheme.stored` may name
DTYPE_BYTES = {
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "C64": 8,
    "F64": 8,
}


class Stored(NamedTuple):
    """One stored tensor: its suffix after the layer's name, safetensors dtype, and shape."""

    part: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size on disk, without its entry in the header."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)
