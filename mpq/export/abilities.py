"""The schemes that a target supports, and the error for everything else."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.errors import MpqError


class ExportError(MpqError):
    """A plan or an artifact that a target does not support, or a package that is not installed."""


@dataclass(frozen=True)
class Abilities:
    """The schemes that a target supports.

    Args:
        bits: bits of symmetric codes.
        asymmetric_bits: bits of codes with zero points.
        group_sizes: allowed group sizes; None allows any.
        whole_row: whether a row may be one group.
        ragged: whether the last group of a row may be shorter.
        floats: floating-point formats.
    """

    bits: tuple[int, ...]
    asymmetric_bits: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] | None = None
    whole_row: bool = True
    ragged: bool = False
    floats: tuple[str, ...] = ("fp16", "bf16", "fp32")
