"""Stacks of matrices in one parameter [number, ...], such as experts: which of them a call reads."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpq.models.memory.regions import Origin, Region


def parts_read(view: Region, origin: Origin, arguments: Mapping[str, Any], *, looked_up: bool) -> set[int]:
    """The indices along dimension 0 of a parameter that an op reads; all, if that cannot be seen.

    Args:
        view: the memory that the op is given.
        origin: how that memory comes from the parameter.
        arguments: those of the op, by name.
        looked_up: whether the op takes entries of `view` by their index.
    """
    count = origin.root.shape[0]
    if len(view.shape) == len(origin.root.shape) and view.shape[0] == count:
        chosen = looked_up_rows(arguments) if looked_up else _grouped(arguments)
        if chosen is not None:
            return chosen & set(range(count))
    indices = origin.trace(np.array([view.address, view.last]))
    return set(range(int(indices[:, 0].min()), int(indices[:, 0].max()) + 1)) if len(indices) else set(range(count))


def looked_up_rows(arguments: Mapping[str, Any]) -> set[int] | None:
    """The indices that an op takes along dimension 0; None if they are not plain indices of that dimension."""
    index = arguments.get("indices", arguments.get("index"))
    index = index[0] if isinstance(index, (list, tuple)) and len(index) == 1 else index
    if not isinstance(index, Tensor) or index.dtype == torch.bool or int(arguments.get("dim", 0)) != 0:
        return None
    return set(index.flatten().tolist())


def _grouped(arguments: Mapping[str, Any]) -> set[int] | None:
    """The matrices of a grouped product that get rows: those whose end is behind that of the one before."""
    ends = arguments.get("offs")
    if not isinstance(ends, Tensor):
        return None
    return {number for number, (start, end) in enumerate(pairwise([0, *ends.tolist()])) if end > start}
