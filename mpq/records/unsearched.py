"""The bytes of a file that the search has no say in: unquantized tensors, the program and the header. No torch."""

from __future__ import annotations


def unsearched_share(file_bytes: int, layer_bytes: int) -> str:
    """How many bytes of a file are not those of its searched layers, for people: "1,024 bytes, 12.5% of the file".

    Args:
        file_bytes: of the whole file.
        layer_bytes: of the searched layers.
    """
    bytes_ = file_bytes - layer_bytes
    return f"{bytes_:,} bytes, {bytes_ / file_bytes:.1%} of the file"


def unsearched_line(file_bytes: int, layer_bytes: int, *, dtype: str | None = None) -> str:
    """The same as a line that says what they are.

    Args:
        file_bytes: of the whole file.
        layer_bytes: of the searched layers.
        dtype: what the unquantized tensors are stored in; None for their own.
    """
    stored = f" in {dtype}" if dtype is not None else ""
    return f"not searched: {unsearched_share(file_bytes, layer_bytes)} (unquantized tensors{stored}, program and header)"
