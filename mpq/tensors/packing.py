"""Dense packing of b-bit codes, 1 <= b <= 8: 8 codes fill b bytes, and only the end of the tensor is padded.

Bit i of the stream is bit i % 8 of byte i // 8; a code's lowest bit comes first.
Formats with a radix store digits to this base instead, as many per byte as fit, the first one lowest: ternary codes are stored five to a
byte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.formats.base import Format


def pack_codes(codes: Tensor, element: Format) -> Tensor:
    """Pack codes of a format (uint8, any shape) into a flat uint8 tensor of `element.code_bytes` bytes."""
    return pack(codes, element.bits) if not element.radix else _pack_digits(codes, element)


def unpack_codes(packed: Tensor, element: Format, count: int) -> Tensor:
    """The first `count` codes of `packed` as a flat uint8 tensor: the inverse of `pack_codes`."""
    if not element.radix:
        return unpack(packed, element.bits, count)
    return digits_of(packed, element).view(-1)[:count].clone()


def codes_from(packed: Tensor, element: Format, first: int, count: int) -> Tensor:
    """`count` codes from code `first` on, which must be at the start of a byte; flat, uint8."""
    return unpack_codes(packed[element.code_bytes(first) :][: element.code_bytes(count)], element, count)


def codes_at(packed: Tensor, element: Format, places: Tensor) -> Tensor:
    """The codes at the given positions, uint8 in their shape."""
    if element.radix:
        byte, place = places // element.digits_per_byte, places % element.digits_per_byte
        digits: Tensor = packed[byte] // _powers(element, packed.device)[place] % element.radix
        return digits
    bits = places * element.bits
    byte, shift = bits // 8, bits % 8
    low = packed[byte].int()
    high = packed[(byte + 1).clamp(max=len(packed) - 1)].int()
    found: Tensor = ((low | high << 8) >> shift & 2**element.bits - 1).to(torch.uint8)
    return found


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
    """Like `pack` if no code crosses a byte boundary; three times as fast."""
    per_byte = 8 // bits
    filled = torch.nn.functional.pad(flat, (0, -flat.numel() % per_byte))
    packed = filled[::per_byte].clone()
    for place in range(1, per_byte):
        packed |= filled[place::per_byte] << (place * bits)
    return packed


def _pack_digits(codes: Tensor, element: Format) -> Tensor:
    flat, powers = codes.reshape(-1), _powers(element, codes.device)
    digits = torch.nn.functional.pad(flat, (0, -flat.numel() % len(powers))).view(-1, len(powers))
    return (digits * powers).sum(1, dtype=torch.uint8)


def digits_of(packed: Tensor, element: Format) -> Tensor:
    """All digits of bytes [count] for a format with a radix: uint8 [count, digits per byte]."""
    powers = _powers(element, packed.device)
    digits: Tensor = packed.unsqueeze(1) // powers % element.radix
    return digits


def _powers(element: Format, device: torch.device) -> Tensor:
    return torch.tensor([element.radix**place for place in range(element.digits_per_byte)], dtype=torch.uint8, device=device)
