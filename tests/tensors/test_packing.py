import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpq.tensors.packing import pack, unpack


def naive(codes: list[int], bits: int) -> list[int]:
    """Bit by bit: bit i of the stream is bit i % 8 of byte i // 8, a code's lowest bit first."""
    found = [0] * ((len(codes) * bits + 7) // 8)
    for number, code in enumerate(codes):
        for bit in range(bits):
            place = number * bits + bit
            found[place // 8] |= (code >> bit & 1) << place % 8
    return found


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 8))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), bits


@settings(deadline=None)
@given(codes_and_bits())
def test_codes_are_packed_as_bit_by_bit_and_read_back(given_: tuple[list[int], int]) -> None:
    codes, bits = given_
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert packed.tolist() == naive(codes, bits)
    assert unpack(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [*range(18), 1000])
def test_every_width_and_tail_is_read_back(bits: int, count: int) -> None:
    codes = torch.randint(0, 2**bits, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    packed = pack(codes, bits)
    assert packed.tolist() == naive(codes.tolist(), bits)
    assert torch.equal(unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", [3, 8])
def test_codes_of_any_layout_are_packed_in_row_order_and_left_alone(bits: int) -> None:
    codes = (torch.arange(15) % 2**bits).byte().reshape(5, 3).t()
    before = codes.clone()
    packed = pack(codes, bits)
    assert torch.equal(packed, pack(codes.contiguous(), bits))
    assert torch.equal(unpack(packed, bits, 15), before.reshape(-1))
    packed.zero_()
    assert torch.equal(codes, before)


@pytest.mark.parametrize("bits", [4, 8])
def test_unpacked_codes_do_not_share_memory_with_the_file(bits: int) -> None:
    packed = pack(torch.tensor([1, 2, 3], dtype=torch.uint8), bits)
    found: Tensor = unpack(packed, bits, 3)
    found.zero_()
    assert unpack(packed, bits, 3).tolist() == [1, 2, 3]
