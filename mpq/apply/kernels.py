"""Which kernel multiplies each layer of an artifact once it is loaded with `packed=True`, and why."""

from __future__ import annotations

from typing import Any

import torch

from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.schemes import Scheme
from mpq.tensors.kernels.choose import Kernel, kernel_for, layout_for
from mpq.tensors.quantized import FLOAT_DTYPES

SAMPLES = (1, 8, 128, 1024)
_WHOLE = Kernel("dequantize", "is no matrix, so no packed product takes it: dequantized whole for each call")


def kernels_of(header: ArtifactHeader) -> list[dict[str, Any]]:
    """One row per layer: its name, scheme, the kernel by rows of the input, and the reasons by kernel."""
    return [_row(layer, header.schemes[layer.name]) for layer in header.layers]


def _row(layer: Layer, scheme: Scheme) -> dict[str, Any]:
    found = {str(samples): _kernel(layer, scheme, samples) for samples in SAMPLES}
    return {
        "layer": layer.name,
        "scheme": str(scheme),
        "kernels": {samples: kernel.name for samples, kernel in found.items()},
        "reasons": {kernel.name: kernel.reason for kernel in found.values()},
    }


def _kernel(layer: Layer, scheme: Scheme, samples: int) -> Kernel:
    if FLOAT_DTYPES.get(scheme.format) == getattr(torch, layer.dtype):
        return kernel_for(scheme, "plain", samples)
    if len(layer.shape) != 2 or len(layer.axes) != 1:
        return _WHOLE
    return kernel_for(scheme, layout_for(scheme, len(layer.shape)), samples)
