"""The digests in an artifact's fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from mpq.data.checksums import digest
from mpq.formats.scheme import Scheme
from mpq.records.artifact import PROGRAM
from mpq.records.layer import Layer
from mpq.tensors.quantized import unpack_weight


def weight_digest(parts: Mapping[str, Tensor], scheme: Scheme, layer: Layer) -> bytes:
    """Of a layer's dequantized weights, float32 [rows, columns]."""
    return digest(unpack_weight(parts, scheme, layer.matrix).dequantize())


def rest_digest(tensors: Mapping[str, Tensor]) -> bytes:
    """Of all tensors that no scheme changed, without the program."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        if name != PROGRAM:
            whole.update(name.encode() + digest(tensors[name]))
    return whole.digest()[:8]
