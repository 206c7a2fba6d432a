"""Schemes: a format with its groups, zero points and scales, and how many bits a weight takes under it.

A scheme is written `<format>[-asym][-gN][-s8]`:

    int4            4-bit integers, symmetric, one fp16 scale per row (output channel)
    int4-g128       one fp16 scale per 128 weights of a row; the last group of a row may be shorter
    int4-asym-g32   with a zero point of 4 bits for each scale
    int4-g16-s8     each scale in 8 bits, relative to a power of two per row: groups of half the size with the same bytes
    nf4-g64         levels of a table times a scale
    mxfp4  bf16     formats that fix their groups, or have none
    ec4.5           integers with one step for the layer, compressed to 4.5 bits per weight, including all overhead

A weight is seen as a matrix [rows, columns]: rows are the output channels, columns everything that one output sums
over. Codes of the whole matrix are packed densely in row order, so 8 codes of b bits take b bytes and only the end of the
matrix is padded to a byte. Only `Scheme.stored` counts bits on disk, and only `packed_layout.py` counts bits of packed codes in memory.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from mpq.errors import SchemeError
from mpq.formats.base import Format
from mpq.formats.coded import CODED
from mpq.formats.matrix import Matrix
from mpq.formats.registry import format_named, formats
from mpq.formats.stored import COMMON_ROWS, Stored
from mpq.shown import shown

_UNKNOWN = r"[a-z]+[0-9]+(?:-e[0-9]+m[0-9]+)?"  # looks like a format


@dataclass(frozen=True, order=True)
class Scheme:
    """How the weights of one layer are stored.

    Args:
        format: name of an element format, see `registry.py` and `coded.py`.
        group_size: weights of a row that share a scale; None means the whole row. Not for floating-point formats; a format may fix it.
        symmetric: False adds a zero point to each scale. Integer formats only.
        small_scales: whether scales take 8 bits instead of 16 (`tensors/small_scales.py`). Only with groups.

    Raises:
        SchemeError: if the format is unknown, or cannot have such groups, zero points or scales.
    """

    format: str
    group_size: int | None = None
    symmetric: bool = True
    small_scales: bool = False

    def __post_init__(self) -> None:
        element = format_named(self.format)
        if element is None and re.fullmatch(CODED, self.format):
            raise SchemeError(f"unknown scheme '{self.format}': coded formats are ec1 to ec8 with at most two decimals, for example ec4.5")
        if element is None:
            known = ", ".join(formats())
            raise SchemeError(f"unknown scheme '{self.format}': use one of {known}, integers optionally with -asym, -gN and -s8")
        object.__setattr__(self, "format", element.name)
        group_size = self.element.check(self.group_size, symmetric=self.symmetric, small_scales=self.small_scales)
        object.__setattr__(self, "group_size", group_size)

    def __str__(self) -> str:
        group = "" if self.group_size is None or self.element.fixed_group is not None else f"-g{self.group_size}"
        return f"{self.format}{'' if self.symmetric else '-asym'}{group}{'-s8' if self.small_scales else ''}"

    @property
    def element(self) -> Format:
        """Its format."""
        found = format_named(self.format)
        assert found is not None
        return found

    @property
    def is_float(self) -> bool:
        """Whether weights are stored as floating-point numbers, without scales."""
        return self.element.kind == "floats"

    @property
    def is_integer(self) -> bool:
        """Whether weights are integers of 2 to 8 bits, minus a zero point, times a scale."""
        return self.element.kind == "integers"

    @property
    def is_coded(self) -> bool:
        """Whether files hold its codes compressed."""
        return self.element.coded

    @property
    def in_memory(self) -> Scheme:
        """The scheme of the same codes in memory: codes of coded formats are unpacked to 8 bits when loaded."""
        return Scheme("int8") if self.is_coded else self

    @property
    def spellings(self) -> frozenset[str]:
        """What a user may call it among measured candidates: the scheme, its format, or its bits."""
        return frozenset((str(self), self.format, f"{self.rate:g}"))

    @property
    def rate(self) -> float:
        """Bits by which schemes are compared: of one code, without scales; for a coded format, all bits per weight in a file."""
        return self.element.rate

    @property
    def bits(self) -> int:
        """Bits of one code, without its share of scales and zero points; 2 for ternary, which is stored in 1.6."""
        return self.element.bits

    def groups(self, columns: int) -> int:
        """Number of groups in a row of `columns` weights; the last one may be shorter."""
        return 1 if self.group_size is None else math.ceil(columns / self.group_size)

    def by_rows(self) -> Scheme:
        """The same format with one 16-bit scale per row; a format with fixed groups keeps them."""
        return Scheme(self.format, None, self.symmetric)

    def stored(self, matrix: tuple[int, int]) -> tuple[Stored, ...]:
        """The tensors that store a weight of shape (rows, columns), exactly as written; a row that many share is stored once."""
        if isinstance(matrix, Matrix):
            return (*self.stored(matrix.stored), Stored(COMMON_ROWS, "U8", (math.ceil(matrix[0] / 8),)))
        (rows, columns), element = matrix, self.element
        if element.storage is not None:
            return (Stored("values", element.storage.dtype, (rows, columns)),)
        if element.coded:
            return (Stored("codes", "U8", (element.code_bytes(rows * columns),)),)
        groups = self.groups(columns)
        codes = Stored("codes", "U8", (element.code_bytes(rows * columns),))
        scales = Stored("scales", "U8", (rows, 1 + groups)) if self.small_scales else Stored("scales", element.scale_dtype, (rows, groups))
        if self.symmetric:
            return codes, scales
        return codes, scales, Stored("zero_points", "U8", (element.code_bytes(rows * groups),))

    def stored_bits(self, matrix: tuple[int, int]) -> int:
        """Bits on disk of a weight of shape (rows, columns): codes, scales, zero points and padding."""
        return 8 * sum(stored.bytes for stored in self.stored(matrix))


@lru_cache(maxsize=1)
def _grammar() -> re.Pattern[str]:
    known = "|".join(map(re.escape, formats()))
    return re.compile(rf"(?P<format>{known}|{CODED}|{_UNKNOWN})(?P<asymmetric>-asym)?(?:-g(?P<group>[0-9]{{1,9}}))?(?P<small>-s8)?")


@lru_cache(maxsize=4096)
def parse_scheme(text: str) -> Scheme:
    """The scheme that `text` names, for example "int4-asym-g32".

    Raises:
        SchemeError: if `text` is not a scheme; the message shows the grammar.
    """
    match = _grammar().fullmatch(text.strip().lower())
    if match is None:
        raise SchemeError(f"{shown(text)} is not a scheme: write <format>[-asym][-gN][-s8], for example int4, int8-asym, int4-g128, fp16")
    group = match["group"]
    return Scheme(match["format"], None if group is None else int(group), match["asymmetric"] is None, match["small"] is not None)
