"""Packed codes in memory: the tables for `tensors/kernels/bags.py`, and the bytes of a packed layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from mpq.formats.matrix import all_rows
from mpq.formats.scheme import Scheme

_LINE_ENDS = {2: 4, 4: 4, 8: 8}  # bits of a code in memory: bytes of slope and offset that the kernel needs in each line
_WHOLE, _BLOCK = 1 << 20, 256  # up to this many weights all outputs are one block; larger layers have blocks of this many outputs


class TableLayout(NamedTuple):
    """The layout of codes in memory for the packed products of `tensors/kernels/bags.py`.

    Args:
        bits: bits of one code.
        block: number of outputs whose codes are together, one line for every column; the last block is padded.
        line_bytes: bytes of a line: `block` codes, then slope and offset.
    """

    bits: int
    block: int
    line_bytes: int


def table_bits(scheme: Scheme) -> int:
    """Bits of a code in memory: the next of 2, 4 and 8."""
    return next(bits for bits in _LINE_ENDS if bits >= scheme.bits)


def table_layout(scheme: Scheme, matrix: tuple[int, int]) -> TableLayout:
    """The layout of a weight of shape (rows, columns); large weights have blocks whose sums stay in registers and run in parallel."""
    (rows, columns), bits = matrix, table_bits(scheme)
    large = rows * columns > _WHOLE and rows > _BLOCK
    block = _BLOCK if large else math.ceil(rows * bits / 8) * 8 // bits
    return TableLayout(bits, block, block * bits // 8 + _LINE_ENDS[bits])


def packed_bytes(scheme: Scheme, matrix: tuple[int, int]) -> int:
    """Bytes in memory of a packed weight of shape (rows, columns), on a CPU with the fast kernels.

    Codes that are linear in their values are in a table; all others keep their stored form, with 8-bit scales converted to fp16.
    """
    scheme, matrix = scheme.in_memory, all_rows(matrix)
    if scheme.element.linear is None:
        return replace(scheme, small_scales=False).stored_bits(matrix) // 8
    rows, columns = matrix
    table = table_layout(scheme, matrix)
    blocks, per_group = -(-rows // table.block), 2 if scheme.symmetric else 3
    return blocks * (columns * table.line_bytes + scheme.groups(columns) * table.block * per_group)
