"""Which kernel multiplies each layer of an artifact once it is loaded with `packed=True`, and why."""

from __future__ import annotations

from typing import Any

import torch

from mpq.formats.scheme import Scheme
from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.tensors.kernels.choose import PACKS, Kernel, is_plain, kernel_for, layout_for
from mpq.tensors.kernels.watched import DEQUANTIZED

SAMPLES = (1, 8, 128, 1024)
_WHOLE = Kernel(DEQUANTIZED, "is not a matrix, so packed kernels do not apply: dequantized for each call")


def kernels_of(header: ArtifactHeader, dtype: torch.dtype | None = None) -> list[dict[str, Any]]:
    """One row per layer: its name, scheme, dtype, the kernel by rows of the input, and the reasons by kernel.

    Args:
        header: of the artifact.
        dtype: that it is loaded in; None: that of the original.
    """
    return [_row(layer, header.schemes[layer.name], dtype or getattr(torch, layer.dtype)) for layer in header.layers]


def faster_in_bfloat16(header: ArtifactHeader) -> bool:
    """Whether layers would get kernels of bfloat16 if the model were loaded in it."""
    now, then = ([row["kernels"]["1"] for row in kernels_of(header, dtype)] for dtype in (None, torch.bfloat16))
    return any(name in PACKS and name != before for before, name in zip(now, then, strict=True))


def cpu() -> str:
    """The CPU features that decide which kernels are used."""
    products = " and products of bfloat16" if torch.cpu._is_avx512_bf16_supported() else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{products}"


def _row(layer: Layer, scheme: Scheme, dtype: torch.dtype) -> dict[str, Any]:
    found = {str(samples): kernel_of(layer, scheme, samples, dtype) for samples in SAMPLES}
    return {
        "layer": layer.name,
        "scheme": str(scheme),
        "dtype": str(dtype).removeprefix("torch."),
        "kernels": {samples: kernel.name for samples, kernel in found.items()},
        "reasons": {kernel.name: kernel.reason for kernel in found.values()},
    }


def kernel_of(layer: Layer, scheme: Scheme, samples: int, dtype: torch.dtype) -> Kernel:
    """The kernel of a layer on the CPU for an input of `samples` rows, in a model of `dtype`."""
    scheme = scheme.in_memory
    if is_plain(scheme, dtype):
        return kernel_for(scheme, "plain", samples)
    if len(layer.shape) != 2 or len(layer.axes) != 1:
        return _WHOLE
    return kernel_for(scheme, layout_for(scheme, layer.matrix, len(layer.shape), dtype), samples, dtype)
