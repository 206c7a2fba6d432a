"""A table for plans that store the unquantized tensors in a smaller dtype: the same errors, a different constant part. No torch."""

from __future__ import annotations

from dataclasses import replace

from mpq.errors import UsageError
from mpq.records.sensitivity import Sensitivity


def stored_as(table: Sensitivity, dtype: str | None) -> Sensitivity:
    """The table of a model whose unquantized floating-point tensors are stored in `dtype` where that is smaller.

    Args:
        table: the analysis, which has counted the bytes of each dtype.
        dtype: "bf16", "fp16" or "fp32"; None leaves the table unchanged.

    Raises:
        UsageError: if a tensor has values that `dtype` cannot represent, or none becomes smaller.
    """
    if dtype is None or table.header.rest.dtype == dtype:
        return table
    option = table.header.rest_as.get(dtype)
    if option is None:
        earlier = "" if table.header.rest_as else "; if an earlier version of mpq made the analysis, run `mpq analyze` again"
        raise UsageError(f"--rest {dtype} makes no unquantized tensor smaller: leave it out{earlier}")
    if isinstance(option, str):
        raise UsageError(f"--rest {dtype}: {option}")
    return replace(table, header=replace(table.header, rest=option), first_line=table.sha256)
