"""Finds samples that are in two data sets: training samples must not decide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from mpq.data.dataset import Data
from mpq.data.hashing import tensor_bytes
from mpq.data.sparse import parts_of


def shared_samples(one: Data, other: Data) -> int:
    """How many samples of `one` are also in `other`, by their inputs; labels and masks are ignored."""
    known = set(_digests(other))
    return sum(digest in known for digest in _digests(one))


def _digests(data: Data) -> Iterator[bytes]:
    for batch in data.batches:
        for index in range(batch.size):
            digest = hashlib.sha256()
            for tensor in batch.narrow(index, 1).tensors:
                for part in parts_of(tensor):
                    digest.update(f"{part.dtype} {list(part.shape)}".encode())
                    digest.update(_bytes(part))
            yield digest.digest()


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor_bytes(tensor).tobytes()
    return content
