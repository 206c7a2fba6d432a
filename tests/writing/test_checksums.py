import io
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.writing.checksums import DamageError, check_seal, cut_torn_end, sealed, unsealed

RECORDS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4).filter(
    lambda made: "crc" not in made
)


@given(RECORDS)
def test_a_sealed_record_is_read_back(record: dict[str, Any]) -> None:
    line = sealed(record)
    assert line.endswith(b"\n")
    assert unsealed(line.rstrip(b"\n")) == record


def test_the_seal_is_the_crc_of_the_line_without_it() -> None:
    body = b'{"a":1}'
    assert sealed({"a": 1}) == b'{"a":1,"crc":"%08x"}\n' % zlib.crc32(body)
    assert check_seal(sealed({"a": 1}).rstrip()) == body
    assert check_seal(sealed({}).rstrip()) == b"{}"


@given(st.integers(0, len('{"layer":"a","errors":[0.25]') - 1), st.integers(1, 255))
def test_any_other_byte_of_a_record_is_noticed(at: int, change: int) -> None:
    line = bytearray(sealed({"layer": "a", "errors": [0.25]}).rstrip())
    line[at] ^= change
    with pytest.raises(DamageError):
        unsealed(bytes(line))


def test_lines_without_a_seal_are_read_as_they_are() -> None:
    assert unsealed(b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(("line", "torn"), [(b'{"a":1', True), (b"[1]", False), (b'{"a":1,"crc":"00000000"}', True), (b"", True)])
def test_damage_tells_whether_it_looks_like_a_torn_end(line: bytes, torn: bool) -> None:
    with pytest.raises(DamageError) as caught:
        unsealed(line)
    assert caught.value.torn is torn


@pytest.mark.parametrize("size", [1, 70_000, 200_000])  # within a block that is searched, and beyond
def test_a_torn_end_is_cut_off_and_no_more(size: int) -> None:
    whole, long = sealed({"a": 1}), sealed({"b": "x" * size})
    for content, kept in (
        (whole + long, len(whole + long)),
        (whole + long[:-1], len(whole)),  # no newline
        (whole + long[: size // 2] + b"\n", len(whole)),  # a line that never reached the disk whole
        (long[:-1], 0),
        (b"", 0),
        (b"[1]\n", 4),  # no record, and not torn
    ):
        file = io.BytesIO(content)
        assert cut_torn_end(file) == len(content) - kept
        assert file.getvalue() == content[:kept]
        assert file.tell() == kept
