"""Codes in words of 32 bits along each row, as compressed-tensors stores them and vLLM's kernels for weight-only models take them."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.tensors.packing import pack
from mpq.tensors.quantized import QuantizedWeight

WORD = 32
BITS, GROUP_SIZES = (4, 8), (32, 64, 128)
"""The bits and group sizes of symmetric integers that these kernels support; they also support one scale per row."""


def packed(weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors of one layer of symmetric integers, by the names of the format "pack-quantized"."""
    assert weight.scales is not None
    return {
        "weight_packed": words(weight.codes, weight.scheme.bits),
        "weight_scale": weight.scales.contiguous(),
        "weight_shape": torch.tensor(weight.matrix, dtype=torch.int64),
    }


def words(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [rows, columns] as int32 [rows, ceil(columns * bits / 32)], lowest bits first, each row padded by zero codes."""
    rows, columns = codes.shape
    filled = torch.nn.functional.pad(codes, (0, -columns % WORD))
    whole = pack(filled, bits).view(torch.int32).view(rows, -1)
    return whole[:, : -(-columns * bits // WORD)].contiguous()
