"""The cheapest scheme of a target that represents the values of another scheme, and the conversion of a weight to it.

A replacement never takes fewer bytes and does not change a weight: more bits have room for the same codes around a different middle,
smaller groups repeat a scale, and one more bit of a symmetric code can replace a zero point. Only integer codes that no integer scheme of
the target can represent, and levels of a table, become fp16, which rounds each weight to 11 bits.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from mpq.export.abilities import Abilities
from mpq.formats.base import FloatStorage
from mpq.formats.registry import formats
from mpq.formats.scheme import Scheme

if TYPE_CHECKING:
    from mpq.tensors.quantized import QuantizedWeight


def closest(scheme: Scheme, matrix: tuple[int, int], abilities: Abilities) -> Scheme | None:
    """The scheme itself if the target supports it, else the one with the fewest bytes that represents its values; None if there is none."""
    if scheme.is_float:
        return _smallest_float(abilities, holding=scheme)
    if not scheme.is_integer:
        return _smallest_float(abilities)
    scheme = without_idle_group(scheme, matrix)
    found = [
        Scheme(f"int{bits}", group, symmetric)
        for bits, symmetric in _codes(scheme, abilities)
        for group in _groups(scheme, matrix, abilities)
    ]
    if scheme in found:
        return scheme
    if found:
        return min(found, key=lambda other: (other.stored_bits(matrix), not other.symmetric, -(other.group_size or 0)))
    return _smallest_float(abilities)


def widen(weight: QuantizedWeight, scheme: Scheme) -> QuantizedWeight:
    """The same weight under its scheme from `closest`."""
    from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight, spread

    if scheme == weight.scheme:
        return weight
    if scheme.is_float:
        return QuantizedWeight(scheme, weight.matrix, weight.dequantize().to(FLOAT_DTYPES[scheme.format]))
    assert weight.scales is not None
    columns = weight.matrix[1]
    starts = range(0, columns, scheme.group_size) if scheme.group_size else range(1)
    first = [start // weight.scheme.group_size if weight.scheme.group_size else 0 for start in starts]
    middle = 2 ** (weight.scheme.bits - 1)
    zero_points = None if weight.zero_points is None else weight.zero_points[:, first]
    if not scheme.symmetric:
        if zero_points is None:
            zero_points = weight.codes.new_full((weight.matrix[0], len(first)), middle)
        return QuantizedWeight(scheme, weight.matrix, weight.codes, weight.scales[:, first], zero_points)
    old = middle if weight.zero_points is None else spread(weight.zero_points.int(), weight.scheme, columns)
    codes = (weight.codes.int() - old + 2 ** (scheme.bits - 1)).to(weight.codes.dtype)
    return QuantizedWeight(scheme, weight.matrix, codes, weight.scales[:, first])


def _smallest_float(abilities: Abilities, *, holding: Scheme | None = None) -> Scheme | None:
    """The smallest floating-point format of a target, optionally one that represents every number of another format."""
    wanted = None if holding is None else holding.element.storage
    found = [name for name in abilities.floats if wanted is None or _storage(name).holds(wanted)]
    return min((Scheme(name) for name in found), key=lambda other: (other.bits, other != holding), default=None)


def _storage(name: str) -> FloatStorage:
    storage = formats()[name].storage
    assert storage is not None
    return storage


def _codes(scheme: Scheme, abilities: Abilities) -> list[tuple[int, bool]]:
    """(bits, symmetric) that can represent every code of `scheme`."""
    needed = scheme.bits if scheme.symmetric else scheme.bits + 1
    found = [(bits, True) for bits in abilities.bits if bits >= needed]
    return found + [(bits, False) for bits in abilities.asymmetric_bits if bits >= scheme.bits]


def _groups(scheme: Scheme, matrix: tuple[int, int], abilities: Abilities) -> list[int | None]:
    """Group sizes whose borders include all borders of the scheme's groups."""
    columns = matrix[1]
    size = scheme.group_size if scheme.group_size and scheme.group_size < columns else None
    found: list[int | None] = [None] if size is None and abilities.whole_row else []
    if size is not None and abilities.group_sizes is None and (abilities.ragged or columns % size == 0):
        found.append(size)
    whole = columns if size is None else size
    every = tuple(range(2, math.gcd(whole, columns) + 1))
    allowed = every if abilities.group_sizes is None else abilities.group_sizes
    fitting = [g for g in allowed if whole % g == 0 and (abilities.ragged or columns % g == 0)]
    return found + [g for g in fitting if g < columns or not abilities.whole_row]


def without_idle_group(scheme: Scheme, matrix: tuple[int, int]) -> Scheme:
    """`scheme` without a group size that covers the whole row, and with its one scale in fp16."""
    if scheme.group_size is not None and scheme.group_size >= matrix[1]:
        return replace(scheme, group_size=None, small_scales=False)
    return scheme
