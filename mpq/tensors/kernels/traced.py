"""The kernels as custom operators, which torch.compile does not trace into; under torch.export they are not used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import choose
from mpq.tensors.kernels.codes import Codes

_CODES = "Tensor codes, Tensor? scales, Tensor? zero_points, str layout, str scheme, int rows, int columns, int bits, bool simple"


@torch.library.custom_op("mpq::product", mutates_args=(), schema=f"(Tensor x, {_CODES}) -> Tensor")
def _product(x: Tensor, *codes: Any) -> Tensor:
    return choose.product(x, _joined(*codes)).contiguous()


@_product.register_fake
def _(x: Tensor, *codes: Any) -> Tensor:
    rows, columns = _joined(*codes).matrix
    return x.new_empty(x.numel() // columns, rows)


@torch.library.custom_op("mpq::rows_of", mutates_args=(), schema=f"(Tensor wanted, {_CODES}) -> Tensor")
def _rows_of(wanted: Tensor, *codes: Any) -> Tensor:
    return choose.rows_of(_joined(*codes), wanted).contiguous()


@_rows_of.register_fake
def _(wanted: Tensor, *codes: Any) -> Tensor:
    packed = _joined(*codes)
    return packed.codes.new_empty(wanted.shape[0], packed.matrix[1], dtype=torch.float32)


def product(x: Tensor, packed: Codes) -> Tensor:
    """`choose.product`, as one operator."""
    found: Tensor = _product(x, *_taken_apart(packed))
    return found


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """`choose.rows_of`, as one operator."""
    found: Tensor = _rows_of(wanted, *_taken_apart(packed))
    return found


def _taken_apart(packed: Codes) -> tuple[Any, ...]:
    """Codes as arguments of operators, in the order of `_CODES`."""
    return packed.codes, packed.scales, packed.zero_points, packed.layout, str(packed.scheme), *packed.matrix, packed.bits, packed.simple


def _joined(
    codes: Tensor, scales: Tensor | None, zeros: Tensor | None, layout: str, scheme: str, rows: int, columns: int, bits: int, simple: bool
) -> Codes:
    """The inverse of `_taken_apart`."""
    return Codes(layout, parse_scheme(scheme), (rows, columns), codes, scales, zeros, bits, simple)
