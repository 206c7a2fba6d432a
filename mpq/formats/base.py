"""The base of all formats: the meaning of a code and how it is stored, as numbers and strings.

A format is plain data. Its fields and methods are used in this order:

    check                            when a scheme is made: the allowed groups, zero points and 8-bit scales
    code_bytes, scale_dtype, storage to count bytes (`Scheme.stored`) and to pack codes (`tensors/packing.py`)
    start, levels, clip_ratios       to quantize (`tensors/levels.py`, `tensors/scales.py`)
    linear                           to multiply packed codes (`tensors/kernels/`)
    tail, summary                    to describe it: JSON schemas, help, docs

There are three kinds. Codes of integers minus a zero point are integers, codes of levels index a table, and floats are the weights
themselves. Coded formats are integers that are compressed in files (`coded.py`).

Add a new format to the tuple `FORMATS` of a file in this folder, its own or that of its family. `registry.py` finds it there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from mpq.errors import SchemeError

Kind = Literal["integers", "levels", "floats"]
Start = Literal["largest", "mean", "exponent"]
MOST_BITS = 8  # bits of a code: it takes one byte while a weight is processed
SCALE_DTYPE, EXPONENT_DTYPE = "F16", "U8"
_GROUP = r"-g([2-9]|[1-9][0-9]+)"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+|\.[0-9]+)*")


class FloatStorage(NamedTuple):
    """How floating-point weights are stored.

    Args:
        dtype: in safetensors.
        torch_dtype: its name in torch.
        exponent_bits: bits of the exponent.
        mantissa_bits: bits of the mantissa, without the implicit leading one.
    """

    dtype: str
    torch_dtype: str
    exponent_bits: int
    mantissa_bits: int

    def holds(self, other: FloatStorage) -> bool:
        """Whether this format represents every number of `other`."""
        return self.exponent_bits >= other.exponent_bits and self.mantissa_bits >= other.mantissa_bits


@dataclass(frozen=True, eq=False)
class Format:
    """One element format.

    Args:
        name: as written in schemes: lower case.
        bits: bits of one code, or of one number. Storage may take less, see `radix`.
        kind: "integers", "levels" or "floats".
        summary: a short description for the docs.
        levels: for kind "levels": the value of each code in units of the scale; NaN for codes that are never used, such as a second zero.
        clip_ratios: scales that the scale search tries, as shares of the starting scale; negative ones flip the signs of the levels.
        range_clips: for formats with zero points: shares of the lowest and of the highest weight that the scale search tries to cover.
        start: the scale that a search starts from, and that round-to-nearest uses: "largest" maps the largest magnitude of a group to the
            largest level, "mean" uses the mean magnitude, "exponent" the largest power of two that clips less than a factor of two.
        radix: codes are stored as digits to this base, as many as fit in a byte; 0 packs their bits densely.
        fixed_group: the only allowed group size; None allows any.
        free_groups: with `fixed_group`: a format with the same levels and any group size.
        exponent_scales: scales are positive powers of two, stored as 8-bit exponents, instead of fp16 numbers.
        cells: levels from -1 to 1 are looked up in this number of equal cells on each side of zero: fast, with an error of at most half a
            cell; 0 finds the nearest level exactly.
        storage: for kind "floats": how they are stored.
        hundredths: for coded integers: bits per weight in a file, in hundredths; 0 for all others.
    """

    name: str
    bits: int
    kind: Kind
    summary: str
    levels: tuple[float, ...] = ()
    clip_ratios: tuple[float, ...] = ()
    range_clips: tuple[tuple[float, float], ...] = ()
    start: Start = "largest"
    radix: int = 0
    fixed_group: int | None = None
    free_groups: str = ""
    exponent_scales: bool = False
    cells: int = 0
    storage: FloatStorage | None = None
    hundredths: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a format called '{self.name}' cannot be written in a scheme: use lower-case letters, digits and dashes")
        if (self.kind == "levels") != bool(self.levels) or (self.kind == "floats") != (self.storage is not None):
            raise ValueError(
                f"format '{self.name}' is of kind {self.kind}: levels need `levels`, floats need `storage`, others have neither"
            )
        if (self.fixed_group is None) == bool(self.free_groups):
            raise ValueError(f"format '{self.name}' needs `free_groups` if it has `fixed_group`, and only then")
        if self.storage is None and not 1 <= self.bits <= MOST_BITS:
            raise ValueError(f"format '{self.name}' has codes of {self.bits} bits: use 1 to {MOST_BITS}")
        if len(self.levels) > (self.radix or 2**self.bits):
            raise ValueError(f"format '{self.name}' has {len(self.levels)} levels, more than its codes can name")

    @property
    def coded(self) -> bool:
        """Whether its codes are compressed in files."""
        return self.hundredths > 0

    @property
    def rate(self) -> float:
        """Bits by which formats are compared: of a code, without scales; for a coded format, all bits per weight in a file."""
        return self.hundredths / 100 if self.coded else self.bits

    @property
    def zero_points(self) -> bool:
        """Whether a scheme may add a zero point to each scale."""
        return bool(self.range_clips)

    @property
    def scale_dtype(self) -> str:
        """The safetensors dtype of its scales, unless the scheme has 8-bit scales."""
        return EXPONENT_DTYPE if self.exponent_scales else SCALE_DTYPE

    @cached_property
    def digits_per_byte(self) -> int:
        """Codes per byte if they are stored as digits; 0 if their bits are packed densely."""
        return int(math.log(256, self.radix) + 1e-9) if self.radix else 0

    def code_bytes(self, count: int) -> int:
        """Bytes of `count` packed codes; for coded ones including all overhead."""
        if self.coded:
            return count * self.hundredths // 800
        return -(-count * self.bits // 8) if not self.radix else -(-count // self.digits_per_byte)

    @cached_property
    def codes_per_run(self) -> int:
        """The smallest number of codes that fill whole bytes."""
        return self.digits_per_byte or 8 // math.gcd(8, self.bits)

    @cached_property
    def linear(self) -> tuple[float, float] | None:
        """Slope and offset if value = slope * code + offset in units of the scale, before any zero point; else None."""
        if self.kind == "integers":
            return 1.0, -float(2 ** (self.bits - 1))
        if len(self.levels) < 2:
            return None
        slope, offset = self.levels[1] - self.levels[0], self.levels[0]
        return (slope, offset) if all(level == slope * code + offset for code, level in enumerate(self.levels)) else None

    @property
    def largest(self) -> float:
        """The largest level."""
        return max(level for level in self.levels if not math.isnan(level))

    def check(self, group_size: int | None, *, symmetric: bool, small_scales: bool) -> int | None:
        """The group size of a scheme with the requested `group_size`: a format may fix it.

        Raises:
            SchemeError: if the format cannot have such groups, zero points or 8-bit scales.
        """
        name, fixed = self.name, self.fixed_group
        if self.kind == "floats" and (group_size is not None or not symmetric):
            raise SchemeError(f"'{name}' is floating point: it takes neither a group size nor a zero point")
        if self.coded and (group_size is not None or not symmetric or small_scales):
            raise SchemeError(f"'{name}' has one step for the whole layer: write {name} without -asym, -gN and -s8")
        if not symmetric and not self.zero_points:
            raise SchemeError(f"'{name}' has no zero point: write {name} without -asym")
        if fixed is not None and group_size not in (None, fixed):
            raise SchemeError(f"{name} has groups of {fixed}, not {group_size}: write {name}, or {self.free_groups}-g{group_size}")
        if small_scales and (group_size is None or fixed is not None):
            raise SchemeError(f"'{name}-s8' has no groups to save on: 8-bit scales go with groups, for example int4-g16-s8")
        if group_size is not None and group_size < 2:
            raise SchemeError(f"group size {group_size} is too small: use at least 2, for example {name}-g32")
        return group_size if fixed is None else fixed

    @property
    def tail(self) -> str:
        """What may follow the name in a scheme, as a regular expression."""
        if self.kind == "floats" or self.coded:
            return ""
        if self.fixed_group is not None:
            return f"(-g{self.fixed_group})?"
        return f"{'(-asym)?' if self.zero_points else ''}({_GROUP}(-s8)?)?"
