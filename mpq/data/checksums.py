"""Short checksums of tensors: equal if dtype, shape and every bit are equal, and the same on every machine."""

from __future__ import annotations

import hashlib

from torch import Tensor

from mpq.data.hashing import tensor_bytes

BYTES = 8


def digest(tensor: Tensor, *, size: int = BYTES) -> bytes:
    """The first `size` bytes of a SHA-256 over dtype, shape and contents of a dense tensor."""
    whole = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    whole.update(tensor_bytes(tensor))
    return whole.digest()[:size]


def checksum(tensor: Tensor) -> str:
    """`digest` in hexadecimal digits."""
    return digest(tensor).hex()
