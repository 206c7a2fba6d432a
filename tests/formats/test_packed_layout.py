import pytest

from mpq.formats.packed_layout import packed_bytes, table_bits, table_layout
from mpq.formats.scheme import parse_scheme


@pytest.mark.parametrize(("scheme", "bits"), [("int2", 2), ("ternary", 2), ("int3", 4), ("int4", 4), ("int5", 8), ("int8", 8)])
def test_a_code_takes_the_next_of_2_4_and_8_bits(scheme: str, bits: int) -> None:
    assert table_bits(parse_scheme(scheme)) == bits


def test_all_outputs_of_a_small_weight_are_one_block_of_whole_bytes() -> None:
    assert table_layout(parse_scheme("int4"), (5, 37)) == (4, 6, 3 + 4)
    assert table_layout(parse_scheme("int2"), (5, 37)) == (2, 8, 2 + 4)
    assert table_layout(parse_scheme("int8"), (5, 37)) == (8, 5, 5 + 8)
    assert table_layout(parse_scheme("int4"), (1024, 1024)).block == 1024  # 2**20 weights are still small


def test_larger_weights_lie_in_blocks_of_256_outputs_unless_they_have_no_more() -> None:
    assert table_layout(parse_scheme("int4"), (1025, 1024)) == (4, 256, 128 + 4)
    assert table_layout(parse_scheme("int4"), (256, 10_000)).block == 256
    assert table_layout(parse_scheme("int4"), (200, 10_000)).block == 200


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("int4", 37 * 7 + 6 * 2),  # a line for each column, a scale for each output of the block
        ("int4-asym-g16", 37 * 7 + 3 * 6 * 3),
        ("nf4-g16", (185 + 1) // 2 + 5 * 3 * 2),  # as stored
        ("nf4-g16-s8", (185 + 1) // 2 + 5 * 3 * 2),  # scales of 8 bits are held in fp16
        ("bf16", 185 * 2),
    ],
)
def test_bytes_in_memory_by_hand(scheme: str, expected: int) -> None:
    assert packed_bytes(parse_scheme(scheme), (5, 37)) == expected
