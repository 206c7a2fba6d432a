"""Ordinary floating-point formats: weights are stored directly, without scales."""

from __future__ import annotations

from mpq.formats.base import FloatStorage, Format

FORMATS = (
    Format("fp16", 16, "floats", "half precision", storage=FloatStorage("F16", "float16", 5, 10)),
    Format("bf16", 16, "floats", "bfloat16", storage=FloatStorage("BF16", "bfloat16", 8, 7)),
    Format("fp32", 32, "floats", "single precision", storage=FloatStorage("F32", "float32", 8, 23)),
)

REST_DTYPES = ("bf16", "fp16", "fp32")
"""What unquantized tensors may be stored in, where that is smaller than their own dtype."""
