"""The hash of data: over dtypes, shapes and contents, independent of how the samples are batched or stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.data.sparse import parts_of

if TYPE_CHECKING:
    from mpq.data.batch import Batch


def sha256_of_batches(batches: Iterable[Batch]) -> str:
    """One hexadecimal SHA-256 over all arguments, labels and masks, sample by sample."""
    columns: dict[str, _Column] = {}
    for batch in batches:
        leaves, _ = pytree.tree_flatten_with_path((batch.args, batch.kwargs, batch.labels))
        for (path, leaf), sampled in zip(leaves, batch.sampled, strict=True):
            column = columns.setdefault(pytree.keystr(path), _Column())
            if batch.whole:
                column.add_whole(leaf)
            else:
                column.add(batch.rows(leaf) if sampled else leaf, samples=sampled)
        if batch.mask is not None:
            columns.setdefault("mask", _Column()).add(batch.mask, samples=True)
    whole = hashlib.sha256()
    for name in sorted(columns):
        whole.update(f"{name}:{columns[name].hexdigest()}\n".encode())
    return whole.hexdigest()


def tensor_bytes(tensor: Tensor) -> Any:
    """The contents of a dense tensor as a flat array of bytes, in row order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class _Column:
    """One argument over all batches: runs of samples of one dtype and shape, or values that whole batches share."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._kind = ""
        self._samples = 0

    def add(self, leaf: Any, *, samples: bool) -> None:
        """Add the next batch's value; a repeated shared value counts once."""
        kind = f"{leaf.dtype} {list(leaf.shape[1:])}" if samples else f"shared {_content(leaf)}"
        if kind != self._kind:
            self._close_run()
            self._kind = kind
        if samples:
            self._digest.update(tensor_bytes(leaf))
            self._samples += len(leaf)

    def add_whole(self, leaf: Any) -> None:
        """Add the value of a batch that is one sample."""
        self._close_run()
        self._kind = f"whole {_content(leaf)}"
        self._samples = 1

    def hexdigest(self) -> str:
        """The hash of all added values."""
        self._close_run()
        return self._digest.hexdigest()

    def _close_run(self) -> None:
        self._digest.update(f"|{self._kind}|{self._samples}|".encode())
        self._samples = 0


def _content(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        parts = b"".join(tensor_bytes(part).tobytes() for part in parts_of(leaf))
        return f"{leaf.dtype} {list(leaf.shape)} {hashlib.sha256(parts).hexdigest()}"
    return repr(leaf)
