import gzip
from pathlib import Path

import pytest

from mpq.data.text_files import read_text_file
from mpq.errors import DataError


def read(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "t").write_bytes(content)
    return read_text_file(tmp_path / "t", "t")


@pytest.mark.parametrize(
    "content",
    [
        "hé\n".encode(),
        "hé\n".encode("utf-8-sig"),
        "hé\n".encode("utf-16"),
        b"\xfe\xff" + "hé\n".encode("utf-16-be"),
        gzip.compress("hé\n".encode(), mtime=0),
        gzip.compress("hé\n".encode("utf-16"), mtime=0),
    ],
)
def test_text_is_read_in_each_encoding_and_from_gzip(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == "hé\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"h\xe9", "t is neither a file of tensors nor UTF-8 text (byte 1): give one of these"),
        (b"\xff\xfeh", "t is neither a file of tensors nor UTF-16 text (byte 2): give one of these"),
        (b"h\0i\0", "t is neither a file of tensors nor text: it contains zero bytes"),
        (b"\xfd7zXZ\0", "t is compressed with xz: unpack it, or compress it with gzip"),
        (b"\x28\xb5\x2f\xfd..", "t is compressed with zstd: unpack it, or compress it with gzip"),
    ],
)
def test_what_is_not_text_is_refused_with_the_cause(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert str(caught.value) == message


def test_a_cut_file_of_gzip_is_refused(tmp_path: Path) -> None:
    for content in (gzip.compress(b"abc" * 100)[:-9], b"\x1f\x8b" + b"x" * 20):
        with pytest.raises(DataError, match=r"^t is compressed with gzip and damaged \(.*\): compress it again$"):
            read(tmp_path, content)


def test_the_limit_counts_unpacked_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.data.text_files.TEXT_BYTES", 7)
    assert read(tmp_path, gzip.compress(b"a" * 7)) == "a" * 7
    for content in (b"a" * 8, gzip.compress(b"a" * 8)):
        with pytest.raises(DataError, match="has more than 7 bytes of text, too many to read completely: use a part of it"):
            read(tmp_path, content)
