"""Which kernel multiplies a packed weight, and why: by layout, device, element format, number of rows of the input, and size.

Measured with one thread on a CPU with AVX2, where a bag costs as much per sample whatever the number of samples, while dequantizing
costs once: `python -m benchmarks.runtime` prints where they cross.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mpq.schemes import Scheme, table_bits
from mpq.tensors.kernels import bags, stored
from mpq.tensors.kernels.codes import Codes

FEW = {2: 3, 4: 4, 8: 7}  # up to so many samples, bags are faster; by bits of a code in the table
_LAYOUTS = {
    "bags": "computes on the packed codes in float32, as exact as with dequantized weights",
    "blocks": "dequantizes a block of outputs at a time: cheaper for more samples",
    "rows": "no packed kernel for this format here: dequantizes some rows at a time",
    "plain": "stored in the dtype of the model: an ordinary tensor",
}


class Kernel(NamedTuple):
    """What multiplies: its name, and the reason for people."""

    name: str
    reason: str


def layout_for(scheme: Scheme, dimensions: int, device: str = "cpu") -> str:
    """The layout for a weight of so many dimensions on a device."""
    return "bags" if device == "cpu" and dimensions > 1 and bags.fits(scheme) and bags.available() else "stored"


def kernel_for(scheme: Scheme, layout: str, samples: int) -> Kernel:
    """The kernel on the CPU for an input of `samples` rows; `layout` may also be "plain", a tensor that is not packed."""
    if layout != "bags":
        return Kernel(layout, _LAYOUTS["plain"]) if layout == "plain" else Kernel("rows", _LAYOUTS["rows"])
    bits = table_bits(scheme)
    return Kernel(f"bags{bits}", _LAYOUTS["bags"]) if samples <= FEW[bits] else Kernel("blocks", _LAYOUTS["blocks"])


def product(x: Tensor, packed: Codes) -> Tensor:
    """The product of x [..., columns] with the transposed weight: [samples, rows], in the dtype of `x`; without gradients."""
    columns = packed.matrix[1]
    samples = x.numel() // columns
    if packed.layout == "bags" and x.is_cpu:
        if 0 < samples <= FEW[packed.bits]:
            return bags.few_rows(x.float(), packed, samples).to(x.dtype)
        if x.dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported():
            return bags.many_rows(x.reshape(samples, columns), packed)
        return bags.many_rows(x.reshape(samples, columns).float(), packed).to(x.dtype)  # other CPUs are faster in float32
    if packed.layout == "bags":
        return x.reshape(samples, columns) @ bags.weight_of(packed).dequantize().to(x.dtype).t()
    return stored.product(x.reshape(samples, columns), packed)


def dequantize(packed: Codes) -> Tensor:
    """The weight as float32 [rows, columns]."""
    if packed.layout != "bags":
        return stored.dequantize(packed)
    fast = packed.codes.device.type == "cpu" and not torch.compiler.is_exporting()  # an exported graph gets plain operations
    return bags.dequantize(packed) if fast else bags.weight_of(packed).dequantize()


def best_layout(packed: Codes, dimensions: int) -> Codes:
    """Stored codes in the layout that is best on the CPU for a tensor of so many dimensions."""
    return bags.bags_of(packed) if layout_for(packed.scheme, dimensions) == "bags" else packed


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by their numbers [count], as float32 [count, columns]."""
    return bags.rows_of(packed, wanted) if packed.layout == "bags" else stored.rows_of(packed, wanted)
