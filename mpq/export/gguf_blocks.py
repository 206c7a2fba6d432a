"""Block types of GGUF files: what each one stores, and the type for each scheme. 32 weights of a row share an fp16 scale.

    Q4_0  Q5_0  Q8_0    symmetric codes of 4, 5, 8 bits: weight = (code - middle) * scale       4.5, 5.5, 8.5 bits per weight
    Q4_1  Q5_1          codes of 4, 5 bits, and an fp16 minimum: weight = code * scale + minimum    5, 6 bits per weight

A symmetric scheme in groups of 32 and a block type with the same bits store the same numbers; for an asymmetric scheme, the minimum is
rounded to fp16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.export.abilities import Abilities
from mpq.formats.scheme import Scheme, parse_scheme

if TYPE_CHECKING:
    from mpq.tensors.quantized import QuantizedWeight

BLOCK = 32
ABILITIES = Abilities(bits=(4, 5, 8), asymmetric_bits=(4, 5), group_sizes=(BLOCK,), whole_row=False)
_TYPES = {
    "int4-g32": "Q4_0",
    "int5-g32": "Q5_0",
    "int8-g32": "Q8_0",
    "int4-asym-g32": "Q4_1",
    "int5-asym-g32": "Q5_1",
    "fp16": "F16",
    "bf16": "BF16",
    "fp32": "F32",
}


def block_type(scheme: Scheme) -> str:
    """The block type, in capitals, of a scheme within `ABILITIES`."""
    return _TYPES[str(scheme)]


def scheme_of(block: str) -> Scheme | None:
    """The scheme for this block type; None if there is none."""
    return next((parse_scheme(text) for text, name in _TYPES.items() if name == block), None)


def pack_blocks(weight: QuantizedWeight) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of a weight in its block type, [rows, bytes of a row]; layouts as in ggml-common.h."""
    assert weight.scales is not None
    rows, columns = weight.matrix
    codes = weight.codes.numpy().reshape(rows, columns // BLOCK, BLOCK)
    scales = weight.scales.numpy()
    parts = [scales[..., None].view(np.uint8)]
    if weight.zero_points is not None:
        minimum = (-weight.zero_points.numpy().astype(np.float32) * scales.astype(np.float32)).astype(np.float16)
        parts.append(minimum[..., None].view(np.uint8))
    if weight.scheme.bits == 8:
        parts.append((codes ^ 0x80).astype(np.uint8))  # two's complement around the middle code
    else:
        if weight.scheme.bits == 5:
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        low = codes & 0x0F
        parts.append((low[..., : BLOCK // 2] | low[..., BLOCK // 2 :] << 4).astype(np.uint8))
    return np.concatenate(parts, axis=-1).reshape(rows, -1)


def unpack_blocks(packed: np.ndarray[Any, np.dtype[np.uint8]], scheme: Scheme, matrix: tuple[int, int]) -> tuple[Any, Any, Any]:
    """The inverse of `pack_blocks`: codes uint8 [rows, columns], scales fp16 [rows, groups], and minima like scales, or None."""
    rows, columns = matrix
    blocks = packed.reshape(rows, columns // BLOCK, -1)
    head = 2 if scheme.symmetric else 4
    numbers = np.ascontiguousarray(blocks[..., :head]).view(np.float16)
    rest = blocks[..., head:]
    if scheme.bits == 8:
        codes = rest ^ 0x80
    else:
        low = rest[..., 4:] if scheme.bits == 5 else rest
        codes = np.concatenate([low & 0x0F, low >> 4], axis=-1)
        if scheme.bits == 5:
            codes = codes | np.unpackbits(rest[..., :4], axis=-1, bitorder="little") << 4
    return np.ascontiguousarray(codes).reshape(rows, columns), numbers[..., 0], None if scheme.symmetric else numbers[..., 1]
