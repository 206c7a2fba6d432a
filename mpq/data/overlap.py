"""Finds samples that are in two data sets: training samples must not decide.

Samples are compared by hashes of all their inputs. Of token ids, runs of 32 are compared as well: the same text may begin at another
place in a window, be padded to another length, or be cut into windows of another size.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.data.hashing import tensor_bytes
from mpq.data.sparse import parts_of

_RUN = 32  # token ids
_SHARE = 0.5  # of the runs of a sample
_ODD, _MIXED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_POWERS = np.random.default_rng(0).integers(1, 2**63, _RUN, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def shared_samples(one: Data, other: Data) -> int:
    """How many samples of `one` are also in `other`, by their inputs; labels and masks are ignored.

    A sample of token ids is also there if at least half of its runs of 32 ids are; runs of one id, such as padding, do not count.
    """
    known = set(_digests(other))
    found = [digest in known for digest in _digests(one)]
    wanted = [_runs(batch, index) for batch in one.batches for index in range(batch.size)]
    every = np.unique(np.concatenate([np.empty(0, np.uint64), *wanted]))
    if not len(every):
        return sum(found)
    seen = np.zeros(len(every), dtype=bool)
    for batch in other.batches:
        for index in range(batch.size):
            runs = _runs(batch, index)
            places = np.searchsorted(every, runs).clip(max=len(every) - 1)
            seen[places[every[places] == runs]] = True
    shares = [seen[np.searchsorted(every, runs)].mean() if len(runs) else 0.0 for runs in wanted]
    return sum(same or share >= _SHARE for same, share in zip(found, shares, strict=True))


def _runs(batch: Batch, index: int) -> NDArray[np.uint64]:
    """Hashes of the runs of token ids of one sample; none if it has no token ids, or fewer."""
    tensors = itertools.chain.from_iterable(parts_of(tensor) for tensor in batch.narrow(index, 1).tensors)
    ids = next((t for t in tensors if t.dtype in (torch.int32, torch.int64) and t.dim() == 2 and t.shape[1] >= _RUN), None)
    if ids is None or len(ids) != 1:
        return np.empty(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(ids[0].cpu().numpy().astype(np.uint64), _RUN)
    varied = windows[(windows != windows[:, :1]).any(1)]
    hashes: NDArray[np.uint64] = ((varied + _ODD) * (varied ^ _MIXED) * _POWERS).sum(1, dtype=np.uint64)
    return hashes


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
