"""The kernels as operators of their own, which torch.compile takes as they are; under torch.export they are not used."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.schemes import parse_scheme
from mpq.tensors.kernels import choose
from mpq.tensors.kernels.codes import Codes


@torch.library.custom_op("mpq::product", mutates_args=())
def _product(
    x: Tensor,
    codes: Tensor,
    scales: Tensor | None,
    zero_points: Tensor | None,
    layout: str,
    scheme: str,
    rows: int,
    columns: int,
    bits: int,
    simple: bool,
) -> Tensor:
    return choose.product(x, Codes(layout, parse_scheme(scheme), (rows, columns), codes, scales, zero_points, bits, simple)).contiguous()


@_product.register_fake
def _(
    x: Tensor,
    codes: Tensor,
    scales: Tensor | None,
    zero_points: Tensor | None,
    layout: str,
    scheme: str,
    rows: int,
    columns: int,
    bits: int,
    simple: bool,
) -> Tensor:
    return x.new_empty(x.numel() // columns, rows)


@torch.library.custom_op("mpq::rows_of", mutates_args=())
def _rows_of(
    wanted: Tensor,
    codes: Tensor,
    scales: Tensor | None,
    zero_points: Tensor | None,
    layout: str,
    scheme: str,
    rows: int,
    columns: int,
    bits: int,
    simple: bool,
) -> Tensor:
    return choose.rows_of(
        Codes(layout, parse_scheme(scheme), (rows, columns), codes, scales, zero_points, bits, simple), wanted
    ).contiguous()


@_rows_of.register_fake
def _(
    wanted: Tensor,
    codes: Tensor,
    scales: Tensor | None,
    zero_points: Tensor | None,
    layout: str,
    scheme: str,
    rows: int,
    columns: int,
    bits: int,
    simple: bool,
) -> Tensor:
    return codes.new_empty(wanted.shape[0], columns, dtype=torch.float32)


def product(x: Tensor, packed: Codes) -> Tensor:
    """`choose.product`, as one operator."""
    found: Tensor = _product(
        x, packed.codes, packed.scales, packed.zero_points, packed.layout, str(packed.scheme), *packed.matrix, packed.bits, packed.simple
    )
    return found


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """`choose.rows_of`, as one operator."""
    found: Tensor = _rows_of(
        wanted,
        packed.codes,
        packed.scales,
        packed.zero_points,
        packed.layout,
        str(packed.scheme),
        *packed.matrix,
        packed.bits,
        packed.simple,
    )
    return found
