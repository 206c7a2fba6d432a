import random
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from mpq.errors import FormatError, NumericsError
from mpq.tensors.coding import CLASSES, FACTORS, LARGEST_EXPONENT, Coded, decode, encode, encoded


def weight(rows: int = 24, columns: int = 40, *, seed: int = 0, spread: float = 9.0) -> Coded:
    """Codes whose rows are spread differently; some rows have larger steps."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(rows, 1, generator=generator) * spread + 0.5
    codes = (torch.randn(rows, columns, generator=generator) * scales).round().clamp(-128, 127).to(torch.int8)
    exponents = torch.zeros(rows, dtype=torch.uint8)
    exponents[rows // 2 :: 7] = 3
    return Coded(codes, exponents, 0.125)


def same(first: Coded, second: Coded) -> bool:
    return torch.equal(first.codes, second.codes) and torch.equal(first.exponents, second.exponents) and first.step == second.step


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 40), st.integers(1, 20), st.sampled_from(CLASSES), st.booleans())
def test_any_codes_are_read_back(data: st.DataObject, rows: int, columns: int, classes: int, strong: bool) -> None:
    most = data.draw(st.sampled_from([0, 1, 5, 127]))
    numbers = st.integers(-most - (most == 127), most)
    codes = data.draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    exponents = data.draw(st.lists(st.integers(0, LARGEST_EXPONENT), min_size=rows, max_size=rows))
    made = Coded(torch.tensor(codes, dtype=torch.int8).view(rows, columns), torch.tensor(exponents, dtype=torch.uint8), 0.5)
    stored = encoded(made, classes=classes, strong=strong)
    assert same(decode(torch.frombuffer(bytearray(stored + b"\0\0\0"), dtype=torch.uint8), (rows, columns)), made)


def test_what_is_stored_has_the_wanted_size_and_ends_in_zeros() -> None:
    made = weight()
    least = min(len(encoded(made, classes=classes, strong=strong)) for classes in CLASSES for strong in (False, True))
    for size in (least, least + 1, 2 * least):
        stored = encode(made, size)
        assert (stored.dtype, tuple(stored.shape)) == (torch.uint8, (size,))
        assert same(decode(stored, (24, 40)), made)
    assert stored[least + 60 :].tolist() == [0] * (least - 60)
    with pytest.raises(NumericsError, match=f"960 codes do not fit in {least - 1} bytes"):
        encode(made, least - 1)


def test_the_bytes_are_those_of_the_description() -> None:
    made = Coded(torch.tensor([[1, -1], [3, 0]], dtype=torch.int8), torch.tensor([0, 2], dtype=torch.uint8), 0.5)
    stored = encoded(made, classes=1, strong=False)
    assert stored[:4] == struct.pack("<eB", 0.5, 2) + b"\x10"
    (first, length), (second, other) = struct.iter_unpack("<BI", stored[4:14])
    assert (first, second, 14 + length + other) == (0, 2, len(stored))
    assert made.scales.tolist() == [[0.5], [1.0]]


def test_rows_of_one_spread_share_a_table() -> None:
    loud, quiet = torch.randn(64, 256) * 30, torch.randn(64, 256)
    made = Coded(torch.cat([loud, quiet]).round().clamp(-127, 127).to(torch.int8)[torch.randperm(128)], torch.zeros(128).byte(), 1.0)
    assert len(encoded(made, classes=2, strong=False)) < 0.87 * len(encoded(made, classes=1, strong=False))


def test_rows_that_nearly_repeat_take_little_by_the_strong_setting() -> None:
    generator = torch.Generator().manual_seed(2)
    codes = (torch.randn(20, 256, generator=generator) * 20).round().repeat(10, 1)
    codes += torch.randint(-2, 3, codes.shape, generator=generator) * (torch.rand(codes.shape, generator=generator) < 0.03)
    made = Coded(codes.clamp(-127, 127).to(torch.int8), torch.zeros(200).byte(), 1.0)
    assert len(encoded(made, classes=1, strong=True)) < 0.5 * len(encoded(made, classes=1, strong=False))


def test_normal_codes_take_little_more_than_their_entropy() -> None:
    codes = (torch.randn(512, 512, generator=torch.Generator().manual_seed(1)) * 4).round().to(torch.int8)
    share = codes.flatten().int().add(128).bincount().double() / codes.numel()
    entropy = -float((share[share > 0] * share[share > 0].log2()).sum())
    bits = 8 * len(encoded(Coded(codes, torch.zeros(512).byte(), 1.0), classes=1, strong=False)) / codes.numel()
    assert entropy < bits < entropy + 0.08


def test_scales_are_told_from_codes_and_scales() -> None:
    made = weight()
    assert same(Coded.of(made.codes, made.scales), made)
    odd = Coded(made.codes, torch.arange(24).remainder(LARGEST_EXPONENT + 1).byte(), 0.0123443603515625)
    assert same(Coded.of(odd.codes, odd.scales), odd)
    assert [round(float(factor), 3) for factor in FACTORS[:4]] == [1.0, 1.414, 2.0, 2.828]
    with pytest.raises(NumericsError, match="not multiples of one step"):
        Coded.of(made.codes, torch.linspace(1, 2, 24).half().unsqueeze(1))


def bytes_of(stored: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(stored), dtype=torch.uint8)


@pytest.mark.parametrize("matrix", [(24, 41), (25, 40), (23, 40), (24, 39), (1, 960), (960, 1), (1, 1)])
def test_another_shape_is_refused(matrix: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match="its codes are damaged"):
        decode(encode(weight(), 960), matrix)


def test_cut_bytes_are_refused_wherever_they_end() -> None:
    stored = encoded(weight(), classes=4, strong=False)
    for end in range(1, len(stored)):
        with pytest.raises(FormatError, match="its codes are damaged"):
            decode(bytes_of(stored[:end]), (24, 40))


@pytest.mark.parametrize(("step", "classes"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0), (1.0, 17), (1.0, 255)])
def test_impossible_heads_are_refused(step: float, classes: int) -> None:
    with pytest.raises(FormatError, match=r"its codes are damaged: a step of .* and \d+ classes of rows cannot be"):
        decode(bytes_of(struct.pack("<eB", step, classes) + bytes(2000)), (24, 40))


def test_classes_that_no_row_is_in_are_refused() -> None:
    stored = bytearray(encoded(weight(), classes=2, strong=False))
    stored[3:15] = b"\x11" * 12
    with pytest.raises(FormatError, match="a class of rows is empty, or is none of 3"):
        decode(bytes_of(bytes(stored)), (24, 40))
    stored[3:15] = b"\xf0" * 12
    with pytest.raises(FormatError, match="a class of rows is empty, or is none of 3"):
        decode(bytes_of(bytes(stored)), (24, 40))


def test_an_exponent_that_there_is_not_is_refused() -> None:
    made = Coded(torch.ones(2, 3, dtype=torch.int8), torch.zeros(2).byte(), 1.0)
    stored = bytearray(encoded(made, classes=1, strong=False))
    stored[3] = LARGEST_EXPONENT + 1
    with pytest.raises(FormatError, match="an exponent is beyond 7"):
        decode(bytes_of(bytes(stored)), (2, 3))


@pytest.mark.parametrize("claimed", [2**40, 24 * 40])
def test_a_size_within_a_frame_is_not_believed(claimed: int) -> None:
    magic = 4
    frame = b"\xc0\x50" + claimed.to_bytes(8, "little") + ZstdCompressor().compress(bytes(960))[magic + 2 :]
    stored = struct.pack("<eBBI", 1.0, 1, 0, len(frame)) + frame
    with pytest.raises(FormatError, match="a frame says more than it may"):
        decode(bytes_of(stored), (24, 40))


def test_a_frame_that_unpacks_to_more_is_stopped() -> None:
    bomb = Coded(torch.zeros(4096, 4096, dtype=torch.int8), torch.zeros(4096).byte(), 1.0)
    stored = encoded(bomb, classes=1, strong=False)
    assert len(stored) < 5000
    with pytest.raises(FormatError, match="its codes are damaged"):
        decode(bytes_of(stored), (2, 3))


def test_damaged_bytes_are_read_as_other_codes_or_refused_in_one_line() -> None:
    sound = encoded(weight(), classes=4, strong=True)
    chance, refused = random.Random(0), list[str]()
    for _ in range(400):
        changed = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            found = decode(bytes_of(bytes(changed)), (24, 40))
        except FormatError as error:
            refused.append(str(error))
        else:
            assert tuple(found.codes.shape) == (24, 40)
    assert len(refused) > 100
    assert all(line.startswith("its codes are damaged") and "\n" not in line for line in refused)
