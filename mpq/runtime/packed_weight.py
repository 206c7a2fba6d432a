"""One layer of an artifact as the tensor that a running model holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.tensors.kernels.choose import best_layout, is_plain
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.matrix import from_matrix
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantized import unpack_weight


def packed_weight(parts: Mapping[str, Tensor], layer: Layer, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """The weight in the layout that is best where its parts are; an ordinary tensor if its scheme stores numbers of `dtype`.

    Args:
        parts: its tensors by part, which it may keep.
        layer: its shape and axes.
        scheme: that the parts are stored in.
        dtype: that the model computes in.
    """
    if is_plain(scheme, dtype):
        return from_matrix(unpack_weight(parts, scheme, layer.matrix).codes.to(dtype), layer.shape, layer.axes, layer.groups)
    codes = stored_codes(parts, scheme, layer.matrix)
    if codes.codes.is_cpu:
        codes = best_layout(codes, len(layer.shape), dtype)
    return PackedTensor(codes, layer.shape, layer.axes, dtype, layer.groups)
