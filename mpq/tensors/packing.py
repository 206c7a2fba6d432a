"""Dense packing of b-bit codes, 1 <= b <= 8: 8 codes fill b bytes, and only the end of the tensor is padded.

Ternary codes lie five to a byte, as digits to base 3, the first one lowest.
Bit i of the stream is bit i % 8 of byte i // 8; a code's lowest bit comes first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.schemes import TRITS_PER_BYTE


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack `codes` (uint8, any shape, values below 2**bits) into a flat uint8 tensor of ceil(numel * bits / 8) bytes."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.clone()
    if 8 % bits == 0:
        return _pack_within_bytes(flat, bits)
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    packed = torch.zeros(blocks.shape[0], bits, dtype=torch.uint8, device=codes.device)
    for position in range(8):
        first, shift = divmod(position * bits, 8)
        packed[:, first] |= blocks[:, position] << shift
        if shift + bits > 8:
            packed[:, first + 1] |= blocks[:, position] >> (8 - shift)
    return packed.view(-1)[: (flat.numel() * bits + 7) // 8].clone()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes of `packed` as a flat uint8 tensor: the inverse of `pack`."""
    if bits == 8:
        return packed[:count].clone()
    if 8 % bits == 0:
        return torch.stack([packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], -1).view(-1)[:count]
    whole = -(-count // 8) * bits
    blocks = torch.nn.functional.pad(packed, (0, whole - packed.numel())).view(-1, bits)
    codes = torch.empty(blocks.shape[0], 8, dtype=torch.uint8, device=packed.device)
    mask = (1 << bits) - 1
    for position in range(8):
        first, shift = divmod(position * bits, 8)
        code = blocks[:, first] >> shift
        if shift + bits > 8:
            code = code | (blocks[:, first + 1] << (8 - shift))
        codes[:, position] = code & mask
    return codes.view(-1)[:count].clone()


def _pack_within_bytes(flat: Tensor, bits: int) -> Tensor:
    """The same where no code crosses the end of a byte, which is three times as fast."""
    per_byte = 8 // bits
    filled = torch.nn.functional.pad(flat, (0, -flat.numel() % per_byte))
    packed = filled[::per_byte].clone()
    for place in range(1, per_byte):
        packed |= filled[place::per_byte] << (place * bits)
    return packed


def pack_trits(codes: Tensor) -> Tensor:
    """Pack codes 0, 1 and 2 (uint8, any shape) into a flat uint8 tensor of ceil(numel / 5) bytes."""
    flat = codes.reshape(-1)
    digits = torch.nn.functional.pad(flat, (0, -flat.numel() % TRITS_PER_BYTE)).view(-1, TRITS_PER_BYTE)
    return (digits * _powers(codes)).sum(1, dtype=torch.uint8)


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of `packed` as a flat uint8 tensor: the inverse of `pack_trits`."""
    digits = packed.unsqueeze(1) // _powers(packed) % 3
    return digits.view(-1)[:count].clone()


def _powers(like: Tensor) -> Tensor:
    return torch.tensor([3**place for place in range(TRITS_PER_BYTE)], dtype=torch.uint8, device=like.device)
