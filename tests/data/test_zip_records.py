import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.data import zip_records
from mpq.data.zip_records import RecordError, Records
from tests.hostile import zipped


def records(content: bytes) -> Records:
    return Records(io.BytesIO(content))


def deflated(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9._]{0,8}", fullmatch=True), st.binary(max_size=50), min_size=1, max_size=5))
def test_every_record_is_read_back_and_lies_where_it_is_said_to(contents: dict[str, bytes]) -> None:
    raw = zipped({f"top/{name}": content for name, content in contents.items()})
    found = records(raw)
    assert list(found) == list(contents)
    for name, content in contents.items():
        assert name in found
        assert (found.size(name), found.checksum(name), found.is_stored(name)) == (len(content), zlib.crc32(content), True)
        assert found.read(name, len(content)) == content
        assert raw[found.start(name) : found.start(name) + len(content)] == content


def test_a_compressed_record_is_read_and_known() -> None:
    found = records(deflated("top/a", bytes(1000)))
    assert (found.is_stored("a"), found.size("a"), found.read("a", 1000)) == (False, 1000, bytes(1000))


def test_names_are_below_the_one_folder() -> None:
    found = records(zipped({"top/data/0": b"x"}))
    assert ("data/0" in found, "top/data/0" in found, 3 in found) == (True, False, False)
    with pytest.raises(RecordError, match=r"^records outside its one folder$"):
        records(zipped({"top/a": b"x", "other/b": b"y"}))


@pytest.mark.parametrize("name", ["top/../a", "top//a", "top/a\\b", "top/a:b", "top/é", "top/", "top", "top/.hidden", "top/a/"])
def test_names_that_readers_could_understand_differently_are_refused(name: str) -> None:
    with pytest.raises(RecordError, match=r"^the unusual record name "):
        records(zipped({name: b"x"}))


@pytest.mark.parametrize("name", [".format_version", ".storage_alignment", ".data/serialization_id", "data.pkl", "a b/c+d$e@f-g.h"])
def test_names_that_torch_writes_pass(name: str) -> None:
    assert list(records(zipped({f"top/{name}": b"x"}))) == [name]


@pytest.mark.parametrize("second", ["top/a", "top/A"])
def test_two_records_of_one_name_whatever_its_case_are_refused(second: str) -> None:
    with pytest.raises(RecordError, match=rf"^two records named '{second[4:]}'$"):
        records(zipped({"top/a": b"x"}, (second, b"y")))


def test_a_record_larger_than_its_limit_is_not_read() -> None:
    found = records(zipped({"top/a": bytes(10)}))
    with pytest.raises(RecordError, match=r"^10 bytes in 'a', more than the 9 allowed$"):
        found.read("a", 9)


def test_contents_that_do_not_fit_their_checksum_are_refused() -> None:
    raw = bytearray(zipped({"top/a": b"content"}))
    raw[raw.index(b"content")] ^= 1
    with pytest.raises(RecordError, match=r"^damaged: Bad CRC-32 for file 'top/a'$"):
        records(bytes(raw)).read("a", 100)


@pytest.mark.parametrize("keep", [0, 4, -1, -30])
def test_an_archive_that_is_cut_off_is_damaged(keep: int) -> None:
    with pytest.raises(RecordError, match=r"^damaged: "):
        records(zipped({"top/a": b"content"})[:keep])


def patched(raw: bytes, offset: int, form: str, value: int) -> bytes:
    """An archive of one record with a field of its central directory changed."""
    content = bytearray(raw)
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + offset, value)
    return bytes(content)


def test_encrypted_records_odd_compressions_and_two_sizes_are_refused() -> None:
    raw = zipped({"top/a": b"content"})
    reason = r"^a record 'top/a' that is encrypted, or compressed in an unusual way$"
    for offset, form, value in ((8, "<H", 1), (10, "<H", 12)):
        with pytest.raises(RecordError, match=reason):
            records(patched(raw, offset, form, value))
    with pytest.raises(RecordError, match=r"^two sizes of the record 'top/a'$"):
        records(patched(raw, 24, "<I", 6))


def test_a_record_that_does_not_begin_or_end_in_the_file_is_refused() -> None:
    raw = zipped({"top/a": b"content"})
    with pytest.raises(RecordError, match=r"^no record where 'a' should begin$"):
        records(patched(raw, 42, "<I", 1)).start("a")
    shifted = bytearray(raw)
    struct.pack_into("<H", shifted, 28, 1000)  # the length of the extra field of the local header
    with pytest.raises(RecordError, match=r"^a record 'a' that is cut off$"):
        records(bytes(shifted)).start("a")


def test_an_archive_unpacks_to_so_much_and_holds_so_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = deflated("top/a", bytes(100_000))
    records(bomb)
    monkeypatch.setattr(zip_records, "ARCHIVE_FREE_BYTES", 1000)
    monkeypatch.setattr(zip_records, "ARCHIVE_RATIO", 10)
    with pytest.raises(RecordError, match=rf"^100,000 bytes in a file of {len(bomb)}$"):
        records(bomb)
    monkeypatch.setattr(zip_records, "ARCHIVE_RECORDS", 1)
    with pytest.raises(RecordError, match=r"^2 records, more than the 1 allowed$"):
        records(zipped({"top/a": b"x", "top/b": b"y"}))
