"""Names of element types in torch and safetensors; tensors of other types are stored bit for bit as numbers of a known type."""

from __future__ import annotations

import torch
from torch import Tensor

SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
}
TORCH_DTYPES = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}


def as_stored(tensor: Tensor) -> Tensor:
    """A tensor with the same bits in a dtype that safetensors has: real and imaginary parts along a last dimension, or bytes."""
    if tensor.dtype in SAFETENSORS_DTYPES or tensor.is_quantized:
        return tensor
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.contiguous().view(torch.uint8)


def from_stored(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `as_stored` for a tensor of `dtype`; dtypes that safetensors has are unchanged."""
    if dtype in SAFETENSORS_DTYPES:
        return stored
    return torch.view_as_complex(stored) if dtype.is_complex else stored.view(dtype)
