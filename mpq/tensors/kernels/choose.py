"""Chooses the kernel for a packed weight, and says why: by layout, device, element format, dtype, number of input rows, and size.

A layout is chosen once, by the CPU and the weight; a kernel is chosen at each call, by the number of rows. The crossover was measured with
one thread, on a CPU with AVX2 and on one with AVX512: `python -m benchmarks.runtime` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mpq.formats.packed_layout import table_bits
from mpq.formats.scheme import Scheme
from mpq.tensors.kernels import bags, int4pack, int8pack, stored, watched
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.quantized import FLOAT_DTYPES, QuantizedWeight

PACKS: dict[str, Any] = {"int4pack": int4pack, "int8pack": int8pack}
_MODULES: dict[str, Any] = {"bags": bags, **PACKS}
_KERNELS = {
    "bags": "computes on the packed codes in float32, as exact as with dequantized weights",
    "blocks": "dequantizes a block of outputs at a time: cheaper for more samples",
    "rows": "no packed kernel for this format here: dequantizes a block of rows at a time",
    "plain": "stored in the dtype of the model: an ordinary tensor",
    "int4pack": "torch's own int4 matmul, fast in bfloat16 on this CPU; scales are rounded to bfloat16",
    "int8pack": "torch's own int8 matmul, fast in bfloat16 on this CPU; scales are rounded to bfloat16",
}


class Kernel(NamedTuple):
    """A kernel: its name, and the reason for people."""

    name: str
    reason: str


def layout_for(scheme: Scheme, matrix: tuple[int, int], dimensions: int, dtype: torch.dtype, device: str = "cpu") -> str:
    """The layout for a weight with this number of dimensions and the matrix shape `matrix`, in a model of `dtype` on a device."""
    if device != "cpu" or dimensions < 2:
        return "stored"
    if dtype == torch.bfloat16 and dimensions == 2:
        for name, pack in PACKS.items():
            if pack.fits(scheme, matrix) and pack.available():
                return name
    return "bags" if bags.fits(scheme) and bags.available() else "stored"


def is_plain(scheme: Scheme, dtype: torch.dtype) -> bool:
    """Whether a weight is an ordinary tensor in a model of `dtype`: it is stored in floating point, and not smaller than that."""
    return scheme.is_float and FLOAT_DTYPES[scheme.format].itemsize >= dtype.itemsize


def kernel_for(scheme: Scheme, layout: str, samples: int, dtype: torch.dtype = torch.float32) -> Kernel:
    """The kernel on the CPU for an input of `samples` rows; `layout` may also be "plain", a tensor that is not packed."""
    if layout in ("plain", "stored"):
        name = "plain" if layout == "plain" else "rows"
        return Kernel(name, _KERNELS[name])
    if layout in PACKS:
        name = layout if samples <= PACKS[layout].FEW else "blocks"
        return Kernel(name, _KERNELS[name])
    bits = table_bits(scheme)
    return Kernel(f"bags{bits}", _KERNELS["bags"]) if samples <= few(bits, dtype) else Kernel("blocks", _KERNELS["blocks"])


@lru_cache(maxsize=64)
def few(bits: int, dtype: torch.dtype) -> int:
    """The largest number of samples for which bags are faster than dequantizing once, by bits of a code in the table.

    Bags cost the same for each sample. They are faster on CPUs with AVX512; CPUs with 16-bit products multiply dequantized blocks faster.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return {2: 3, 4: 4, 8: 7}[bits]
    return {2: 8, 4: 8, 8: 12 if dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported() else 24}[bits]


def product(x: Tensor, packed: Codes) -> Tensor:
    """The product of x [..., columns] with the transposed weight: [samples, rows], in the dtype of `x`; without gradients."""
    columns = packed.matrix[1]
    if x.ndim != 2:
        x = x.reshape(x.numel() // columns, columns)
    name, kernel = _chosen(x, packed)
    if watched.notes:
        watched.ran(name, packed, x.shape[0])
    return kernel(x, packed)


def _chosen(x: Tensor, packed: Codes) -> tuple[str, Callable[[Tensor, Codes], Tensor]]:
    """The kernel for x [samples, columns], and its name; "bags" is without the bits."""
    samples, layout = x.shape[0], packed.layout
    if layout == "stored":
        return "rows", stored.product
    if not x.is_cpu:
        return watched.DEQUANTIZED, _whole
    pack = PACKS.get(layout)
    if pack is not None and x.dtype is torch.bfloat16 and 0 < samples <= pack.FEW and pack.available():
        return layout, pack.few_rows
    if pack is None and 0 < samples <= few(packed.bits, x.dtype):
        return layout, _few_rows
    return "blocks", _many_rows


def _whole(x: Tensor, packed: Codes) -> Tensor:
    return x @ weight_of(packed).dequantize().to(x.dtype).t()


def _few_rows(x: Tensor, packed: Codes) -> Tensor:
    return bags.few_rows(x.float(), packed).to(x.dtype)


def _many_rows(x: Tensor, packed: Codes) -> Tensor:
    own = x.dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()  # other CPUs are faster in float32
    found: Tensor = _MODULES[packed.layout].many_rows(x if own else x.float(), packed)
    return found.to(x.dtype)


def dequantize(packed: Codes) -> Tensor:
    """The weight as float32 [rows, columns]."""
    if packed.layout == "stored":
        return stored.dequantize(packed)
    if packed.codes.device.type != "cpu" or torch.compiler.is_exporting():
        return weight_of(packed).dequantize()  # an exported graph uses plain operations
    found: Tensor = _MODULES[packed.layout].dequantize(packed)
    return found


def weight_of(packed: Codes) -> QuantizedWeight:
    """The weight of codes in a layout other than "stored", by plain operations that every device supports."""
    found: QuantizedWeight = _MODULES[packed.layout].weight_of(packed)
    return found


def best_layout(packed: Codes, dimensions: int, dtype: torch.dtype) -> Codes:
    """Codes in the best layout on the CPU for a tensor with this number of dimensions in a model of `dtype`."""
    return in_layout(packed, layout_for(packed.scheme, packed.matrix, dimensions, dtype))


def in_layout(packed: Codes, layout: str) -> Codes:
    """The same codes in another layout, which must support them."""
    if packed.layout == layout:
        return packed
    if packed.layout != "stored":
        packed = stored.stored_codes(weight_of(packed).pack(), packed.scheme, packed.matrix)
    if layout == "stored":
        return packed
    found: Codes = _MODULES[layout].packed_of(packed)
    return found


def rows_of(packed: Codes, wanted: Tensor) -> Tensor:
    """Rows of the weight by index [count], as float32 [count, columns]."""
    if watched.notes:
        watched.ran(watched.LOOKUP, packed, len(wanted))
    found: Tensor = (stored if packed.layout == "stored" else _MODULES[packed.layout]).rows_of(packed, wanted)
    return found
