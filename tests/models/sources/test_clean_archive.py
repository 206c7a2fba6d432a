"""An archive of checked records, put together while it is read."""

import io
import zipfile

import pytest
import torch

from mpq.data.zip_records import Records
from mpq.models.sources.clean_archive import CleanArchive
from tests.hostile import zipped

CONTENTS = {"top/a": b"first", "top/b": bytes(range(256)) * 50, "top/empty": b""}


def made(*placed: str, deflated: bool = False, **own: bytes) -> CleanArchive:
    """Records of an original archive, then some of their own."""
    original = io.BytesIO(zipped(CONTENTS))
    if deflated:
        original = io.BytesIO()
        with zipfile.ZipFile(original, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in CONTENTS.items():
                archive.writestr(name, content)
    clean = CleanArchive(original)
    for name in placed:
        clean.place(name, Records(original))
    for name, content in own.items():
        clean.write_record(name, content)
    return clean.finish()


@pytest.mark.parametrize("deflated", [False, True])
def test_records_of_the_original_and_of_their_own_are_read_back(deflated: bool) -> None:
    archive = zipfile.ZipFile(made("b", "empty", deflated=deflated, c=b"own"))
    assert archive.namelist() == ["archive/b", "archive/empty", "archive/c"]
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == {
        "archive/b": CONTENTS["top/b"],
        "archive/empty": b"",
        "archive/c": b"own",
    }


def test_nothing_else_of_the_original_is_in_it() -> None:
    assert CONTENTS["top/a"] not in made("b").read()


def test_no_records_are_an_empty_archive() -> None:
    assert zipfile.ZipFile(made()).namelist() == []


def test_it_can_be_read_from_anywhere_in_pieces_of_any_size() -> None:
    archive = made("a", "b", c=b"own" * 100)
    whole = archive.read()
    assert archive.read() == b""
    for size in (1, 7, 4096):
        archive.seek(0)
        parts = []
        while part := archive.read(size):
            parts.append(part)
        assert b"".join(parts) == whole
    for start in range(0, len(whole), 997):
        assert archive.seek(start) == archive.tell() == start
        assert archive.read(50) == whole[start : start + 50]
    assert archive.seek(-5, io.SEEK_END) == len(whole) - 5
    assert archive.seek(2, io.SEEK_CUR) == len(whole) - 3
    assert archive.read() == whole[-3:]
    assert archive.seek(len(whole) + 10) == len(whole) + 10
    assert archive.read(1) == b""
    assert archive.seek(-100) == 0
    assert (archive.readable(), archive.seekable(), archive.writable()) == (True, True, False)


def test_an_original_that_became_shorter_ends_the_read() -> None:
    original = io.BytesIO(zipped(CONTENTS))
    clean = CleanArchive(original)
    clean.place("b", Records(original))
    archive = clean.finish()
    original.truncate(200)
    assert len(archive.read()) < 12_800


def test_torch_reads_what_was_put_together() -> None:
    saved = io.BytesIO()
    torch.save({"w": torch.arange(3.0)}, saved)
    records = Records(saved)
    clean = CleanArchive(saved)
    for name in records:
        clean.place(name, records)
    found = torch.load(io.BufferedReader(clean.finish()))
    assert found["w"].tolist() == [0, 1, 2]


def test_more_records_than_a_short_count_holds_are_counted_in_64_bits() -> None:
    clean = CleanArchive(io.BytesIO())
    for number in range(70_000):
        clean.write_record(f"{number}", b"")
    assert len(zipfile.ZipFile(clean.finish()).namelist()) == 70_000
