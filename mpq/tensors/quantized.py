"""One quantized weight: codes, scales and zero points, and its dequantization.

    symmetric    weight = (code - 2**(bits - 1)) * scale      the scale may be negative
    asymmetric   weight = (code - zero_point) * scale
    by levels    weight = table[code] * scale               see `tensors/levels.py`
    coded        as symmetric with 8 bits, compressed where it is stored: `tensors/coding.py`

Scales are fp16 (or powers of two, if the format says so, or 8-bit numbers under -s8), arithmetic is float32: `dequantize` gives exactly the
values that were measured and that a loaded artifact has.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpq.errors import FormatError
from mpq.formats.matrix import Matrix, all_rows, matrix_of
from mpq.formats.registry import formats
from mpq.formats.scheme import Scheme
from mpq.formats.stored import COMMON_ROWS
from mpq.tensors.coding import Coded, decode, encode
from mpq.tensors.common_rows import from_bits, places_of, stored_places, to_bits
from mpq.tensors.dtypes import TORCH_DTYPES
from mpq.tensors.levels import from_codes, from_exponents
from mpq.tensors.packing import pack_codes, unpack_codes
from mpq.tensors.small_scales import from_bytes, to_bytes

FLOAT_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, found.storage.torch_dtype) for name, found in formats().items() if found.storage is not None
}
"""The dtype of each floating-point format."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight matrix [rows, columns] under a scheme.

    Args:
        scheme: how it is stored.
        matrix: (rows, columns).
        codes: uint8 [rows, columns] for integers and levels; the values in the scheme's dtype for floating-point schemes.
        scales: fp16 [rows, groups], uint8 exponents where scales are powers of two, or None.
        zero_points: uint8 [rows, groups], or None if symmetric.
        common: bool [rows], which rows are one common row; they have the same codes and scales, and are stored once. None if none are.
    """

    scheme: Scheme
    matrix: tuple[int, int]
    codes: Tensor
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    common: Tensor | None = None

    def dequantize(self) -> Tensor:
        """The weights as float32 [rows, columns]."""
        if self.scales is None:
            return self.codes.float()
        columns = self.matrix[1]
        numbers = from_exponents(self.scales) if self.scheme.element.exponent_scales else self.scales.float()
        scale = spread(numbers, self.scheme, columns)
        if not self.scheme.is_integer:
            return from_codes(self.codes, self.scheme).mul_(scale)
        middle = 2 ** (self.scheme.bits - 1)
        zero = middle if self.zero_points is None else spread(self.zero_points.float(), self.scheme, columns)
        return self.codes.float().sub_(zero).mul_(scale)

    def rows(self, wanted: slice | Tensor) -> QuantizedWeight:
        """Some rows of it, by position or as views, each by itself."""
        codes, scales, zero_points = (None if part is None else part[wanted] for part in (self.codes, self.scales, self.zero_points))
        assert codes is not None
        return QuantizedWeight(self.scheme, (len(codes), self.matrix[1]), codes, scales, zero_points)

    def all_rows(self) -> QuantizedWeight:
        """The same with every row stored by itself."""
        return replace(self, matrix=all_rows(self.matrix), common=None)

    def shared(self, common: Tensor) -> QuantizedWeight:
        """The weight whose stored rows these are: `common` [rows] tells which ones are the last of them (`tensors/common_rows.py`)."""
        made, common = self.rows(places_of(common.to(self.codes.device))), common.to(self.codes.device)
        return replace(made, matrix=matrix_of(*made.matrix, int(common.sum())), common=common)

    def pack(self) -> dict[str, Tensor]:
        """The tensors to store, by the part names of `Scheme.stored`."""
        if self.common is not None:
            return self.rows(stored_places(self.common)).pack() | {COMMON_ROWS: to_bits(self.common)}
        if self.scales is None:
            return {"values": self.codes}
        element = self.scheme.element
        if element.coded:
            return {"codes": encode(self.coded, element.code_bytes(self.codes.numel()))}
        parts = {"codes": pack_codes(self.codes, element), "scales": to_bytes(self.scales) if self.scheme.small_scales else self.scales}
        if self.zero_points is not None:
            parts["zero_points"] = pack_codes(self.zero_points, element)
        return parts

    def in_memory(self) -> QuantizedWeight:
        """The same codes and scales under their in-memory scheme, every row by itself."""
        return replace(self.all_rows(), scheme=self.scheme.in_memory)

    @property
    def coded(self) -> Coded:
        """The codes under a coded scheme, as a `Coded`."""
        assert self.scales is not None
        return Coded.of((self.codes ^ 128).view(torch.int8), self.scales)


def coded_weight(coded: Coded, scheme: Scheme) -> QuantizedWeight:
    """The weight of a `Coded`, under a coded scheme or as int8."""
    return QuantizedWeight(scheme, (coded.codes.shape[0], coded.codes.shape[1]), coded.codes.view(torch.uint8) ^ 128, coded.scales)


def unpack_weight(parts: Mapping[str, Tensor], scheme: Scheme, matrix: tuple[int, int]) -> QuantizedWeight:
    """The inverse of `QuantizedWeight.pack`.

    Raises:
        FormatError: if a part is missing or does not have the shape of the scheme.
    """
    for stored in scheme.stored(matrix):
        found = parts.get(stored.part)
        if found is None or tuple(found.shape) != stored.shape:
            raise FormatError(
                f"part '{stored.part}' should have shape {list(stored.shape)}, found {None if found is None else list(found.shape)}"
            )
    if isinstance(matrix, Matrix):
        common = from_bits(parts[COMMON_ROWS], matrix[0])
        if int(common.sum()) != matrix.alike:
            raise FormatError(f"part '{COMMON_ROWS}' marks {int(common.sum())} rows, and {matrix.alike} are alike")
        return unpack_weight(parts, scheme, matrix.stored).shared(common)
    if scheme.is_float:
        return QuantizedWeight(scheme, matrix, parts["values"])
    if scheme.is_coded:
        coded = decode(parts["codes"], matrix)
        return QuantizedWeight(scheme, matrix, coded.codes.view(torch.uint8).bitwise_xor_(128), coded.scales)  # in place: one copy less
    rows, columns = matrix
    codes = unpack_codes(parts["codes"], scheme.element, rows * columns).view(rows, columns)
    zero_points = None
    if not scheme.symmetric:
        groups = scheme.groups(columns)
        zero_points = unpack_codes(parts["zero_points"], scheme.element, rows * groups).view(rows, groups)
    return QuantizedWeight(scheme, matrix, codes, scales_of(parts, scheme), zero_points)


def are_parts(parts: Mapping[str, Tensor], scheme: Scheme, matrix: tuple[int, int]) -> bool:
    """Whether untrusted tensors can be the output of `QuantizedWeight.pack`: names, shapes, dtypes, finite scales, readable codes."""
    expected = {stored.part: (stored.shape, TORCH_DTYPES[stored.dtype]) for stored in scheme.stored(matrix)}
    found = {name: (tuple(part.shape), part.dtype) for name, part in parts.items()}
    if found != expected or not bool(parts.get("scales", torch.zeros(())).float().isfinite().all()):
        return False
    if isinstance(matrix, Matrix) and int(from_bits(parts[COMMON_ROWS], matrix[0]).sum()) != matrix.alike:
        return False
    if scheme.is_coded:
        with suppress(FormatError):
            return bool(decode(parts["codes"], matrix.stored if isinstance(matrix, Matrix) else matrix).step)
    return not scheme.is_coded


def scales_of(parts: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """The scales [rows, groups] among stored parts: fp16, or exponents of powers of two."""
    return from_bytes(parts["scales"]) if scheme.small_scales else parts["scales"]


def spread(per_group: Tensor, scheme: Scheme, columns: int) -> Tensor:
    """Repeat a value per group [rows, groups] over the columns: [rows, columns], or [rows, 1] if a row is one group."""
    if per_group.shape[1] == 1:
        return per_group
    assert scheme.group_size is not None
    return per_group.repeat_interleave(scheme.group_size, dim=1)[:, :columns]
