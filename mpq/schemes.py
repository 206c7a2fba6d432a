"""Schemes: what "int4-g128" means, and how many bits a weight takes under it. No torch.

A scheme is written `<format>[-asym][-gN][-s8]`:

    int4            4-bit integers, symmetric, one fp16 scale per row (output channel)
    int4-g128       one fp16 scale per 128 weights of a row; the last group of a row may be shorter
    int4-asym-g32   with a zero point of 4 bits beside each scale
    int4-g16-s8     each scale in 8 bits, relative to a power of two per row: groups of half the size at the same bytes
    nl3 .. nl7      levels spaced like normal weights, optionally with -gN and -s8
    nf4 fp4-e2m1 fp8-e4m3 fp8-e5m2 int1 ternary
                    levels of a table times a scale, optionally with -gN and -s8; int1 is -1 or 1, ternary is -1, 0 or 1, five to a byte
    mxfp4           fp4-e2m1 with a power of two per 32 weights, stored in 8 bits
    fp16 bf16 fp32  floating point, no scales

A weight is seen as a matrix [rows, columns]: rows are the output channels, columns everything that one output sums
over. Codes of the whole matrix are packed densely in row order, so 8 codes of b bits take b bytes and only the end of the
matrix is padded to a byte. `Scheme.stored` is the only place that counts bits on disk, `table_layout` those of packed codes in memory.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mpq.errors import SchemeError

FLOAT_FORMATS = {"fp16": 16, "bf16": 16, "fp32": 32}
INTEGER_FORMATS = {f"int{bits}": bits for bits in range(2, 9)}
NORMAL_FORMATS = {f"nl{bits}": bits for bits in range(3, 8)}
LEVEL_FORMATS = {"int1": 1, "ternary": 2, **NORMAL_FORMATS, "nf4": 4, "fp4-e2m1": 4, "mxfp4": 4, "fp8-e4m3": 8, "fp8-e5m2": 8}
TRITS_PER_BYTE = 5
MX_GROUP = 32
DTYPE_BYTES = {
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
    "I64": 8,
    "F64": 8,
}
SCALE_DTYPE = "F16"
PARTS = ("values", "codes", "scales", "zero_points")  # what `Scheme.stored` may name
_PATTERN = re.compile(r"(?P<format>ternary|[a-z]+\d+(?:-e\d+m\d+)?)(?P<asymmetric>-asym)?(?:-g(?P<group>\d+))?(?P<small>-s8)?")
_LINE_ENDS = {2: 4, 4: 4, 8: 8}  # bits of a code in memory: bytes of slope and offset that the kernel wants in each line
_WHOLE, _BLOCK = 1 << 20, 256  # up to so many weights all outputs are one block; larger ones have blocks of so many
_FLOAT_DTYPE = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}


class Stored(NamedTuple):
    """One stored tensor: its suffix after the layer's name, safetensors dtype, and shape."""

    part: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size on disk, without its entry in the header."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, order=True)
class Scheme:
    """How the weights of one layer are stored.

    Args:
        format: element format, a key of `INTEGER_FORMATS`, `LEVEL_FORMATS` or `FLOAT_FORMATS`.
        group_size: weights of a row that share a scale; None means the whole row. Not for floating point; always 32 for mxfp4.
        symmetric: False adds a zero point to each scale. Integer formats only.
        small_scales: whether scales take 8 bits instead of 16, `tensors/small_scales.py`. Only with groups.

    Raises:
        SchemeError: if the format is unknown, or a floating-point format is given groups or zero points.
    """

    format: str
    group_size: int | None = None
    symmetric: bool = True
    small_scales: bool = False

    def __post_init__(self) -> None:
        if self.format not in (*INTEGER_FORMATS, *LEVEL_FORMATS, *FLOAT_FORMATS):
            known = ", ".join([*INTEGER_FORMATS, *LEVEL_FORMATS, *FLOAT_FORMATS])
            raise SchemeError(f"unknown scheme '{self.format}': use one of {known}, integers optionally with -asym, -gN and -s8")
        if self.is_float and (self.group_size is not None or not self.symmetric):
            raise SchemeError(f"'{self.format}' is floating point: it takes neither a group size nor a zero point")
        if self.format in LEVEL_FORMATS and not self.symmetric:
            raise SchemeError(f"'{self.format}' has no zero point: write {self.format} without -asym")
        if self.format == "mxfp4":
            if self.group_size not in (None, MX_GROUP):
                raise SchemeError(f"mxfp4 has groups of {MX_GROUP}, not {self.group_size}: write mxfp4, or fp4-e2m1-g{self.group_size}")
            object.__setattr__(self, "group_size", MX_GROUP)
        if self.small_scales and (self.group_size is None or self.format == "mxfp4"):
            raise SchemeError(f"'{self.format}-s8' has no groups to save on: 8-bit scales go with groups, for example int4-g16-s8")
        if self.group_size is not None and self.group_size < 2:
            raise SchemeError(f"group size {self.group_size} is too small: use at least 2, for example {self.format}-g32")

    def __str__(self) -> str:
        group = "" if self.group_size is None or self.format == "mxfp4" else f"-g{self.group_size}"
        return f"{self.format}{'' if self.symmetric else '-asym'}{group}{'-s8' if self.small_scales else ''}"

    @property
    def is_float(self) -> bool:
        """Whether weights are stored as floating-point numbers, without scales."""
        return self.format in FLOAT_FORMATS

    @property
    def is_integer(self) -> bool:
        """Whether weights are whole numbers of 2 to 8 bits, less a zero point, times a scale."""
        return self.format in INTEGER_FORMATS

    @property
    def bits(self) -> int:
        """Bits of one code, without its share of scales and zero points; 2 for ternary, which is stored in 1.6."""
        return {**FLOAT_FORMATS, **INTEGER_FORMATS, **LEVEL_FORMATS}[self.format]

    def groups(self, columns: int) -> int:
        """Number of groups in a row of `columns` weights; the last one may be shorter."""
        return 1 if self.group_size is None else math.ceil(columns / self.group_size)

    def stored(self, matrix: tuple[int, int]) -> tuple[Stored, ...]:
        """The tensors that hold a weight of shape (rows, columns), exactly as they are written."""
        rows, columns = matrix
        if self.is_float:
            return (Stored("values", _FLOAT_DTYPE[self.format], (rows, columns)),)
        groups = self.groups(columns)
        packed = rows * columns / TRITS_PER_BYTE if self.format == "ternary" else rows * columns * self.bits / 8
        codes = Stored("codes", "U8", (math.ceil(packed),))
        scales = Stored("scales", "U8" if self.format == "mxfp4" else SCALE_DTYPE, (rows, groups))
        if self.small_scales:
            scales = Stored("scales", "U8", (rows, 1 + groups))
        if self.symmetric:
            return codes, scales
        return codes, scales, Stored("zero_points", "U8", (math.ceil(rows * groups * self.bits / 8),))

    def stored_bits(self, matrix: tuple[int, int]) -> int:
        """Bits on disk of a weight of shape (rows, columns): codes, scales, zero points and padding."""
        return 8 * sum(stored.bytes for stored in self.stored(matrix))


class TableLayout(NamedTuple):
    """How codes lie in memory for the packed products of `tensors/kernels/bags.py`.

    Args:
        bits: of one code.
        block: outputs whose codes lie together, for every column a line; the last block is padded.
        line_bytes: bytes of a line: `block` codes, then what the kernel wants.
    """

    bits: int
    block: int
    line_bytes: int


def table_bits(scheme: Scheme) -> int:
    """Bits of a code in memory: the next of 2, 4 and 8."""
    return next(bits for bits in _LINE_ENDS if bits >= scheme.bits)


def table_layout(scheme: Scheme, matrix: tuple[int, int]) -> TableLayout:
    """The layout of a weight of shape (rows, columns); large weights lie in blocks whose sums stay in registers and run in parallel."""
    (rows, columns), bits = matrix, table_bits(scheme)
    large = rows * columns > _WHOLE and rows > _BLOCK
    block = _BLOCK if large else math.ceil(rows * bits / 8) * 8 // bits
    return TableLayout(bits, block, block * bits // 8 + _LINE_ENDS[bits])


@lru_cache(maxsize=4096)
def parse_scheme(text: str) -> Scheme:
    """The scheme that `text` names, for example "int4-asym-g32".

    Raises:
        SchemeError: if `text` is not a scheme; the message shows the grammar.
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    if match is None:
        raise SchemeError(f"'{text}' is not a scheme: write <format>[-asym][-gN][-s8], for example int4, int8-asym, int4-g128, fp16")
    group = match["group"]
    return Scheme(match["format"], None if group is None else int(group), match["asymmetric"] is None, match["small"] is not None)
