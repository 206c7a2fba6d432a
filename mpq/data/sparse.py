"""The plain tensors that sparse tensors are made of."""

from __future__ import annotations

import torch
from torch import Tensor

_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def parts_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """The plain tensors that a sparse tensor is made of, its values last; a plain tensor itself."""
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        joined = tensor.coalesce()
        return joined.indices(), joined.values()
    return (*(getattr(tensor, name)() for name in _COMPRESSED[tensor.layout]), tensor.values())


def same_tensors(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same layout and contents; NaN equals NaN."""
    if left.layout != right.layout or left.shape != right.shape or left.dtype != right.dtype:
        return False
    return all(_equal(one, other) for one, other in zip(parts_of(left), parts_of(right), strict=True))


def _equal(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    return torch.equal(left, right) or bool(((left == right) | (left.isnan() & right.isnan())).all())
