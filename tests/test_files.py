import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.files import (
    PREFIX,
    Journal,
    OutputError,
    atomic_write,
    check_version,
    first_bytes,
    journal_line,
    journal_lines,
    open_file,
    sha256_of,
    write_text,
)
from mpq.limits import LINE_BYTES
from mpq.reading.documents import read_bytes
from mpq.writing.checksums import unsealed
from mpq.writing.locks import exclusive

LINE = len(journal_line({"n": 0}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert names(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / "a", "text")
    assert str(error.value) == f"cannot write {tmp_path / 'a'}: No space left on device; choose another place with --output"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/a", "No such file or directory"),
        ("file/a", "Not a directory"),
        ("folder", "it is a folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / place, "text")
    assert str(error.value) == f"cannot write {tmp_path / place}: {reason}; choose another place with --output"
    assert names(tmp_path) == ["file", "folder"]


def test_the_current_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"^cannot write \.: .*; choose another place with --output$"):
        write_text(Path(), "text")
    assert names(tmp_path) == []


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems")
def test_the_file_is_synced_before_it_is_moved_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        assert (tmp_path / "a").exists() == (done[-1] == "folder")

    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "a", "text")
    assert done == ["file", "folder"]


@pytest.mark.skipif(os.name != "posix", reason="there is a umask on POSIX systems")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_the_hash_is_of_the_contents_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc" * (1 << 19))
    two.write_bytes(b"d")
    assert sha256_of([one, two]) == hashlib.sha256(b"abc" * (1 << 19) + b"d").hexdigest()
    assert sha256_of([two, one]) != sha256_of([one, two])


def test_older_and_equal_versions_are_read() -> None:
    check_version(1, supported=2, path="p", kind="a plan")
    check_version(2, supported=2, path="p", kind="a plan")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, "p.yaml is a plan of version 3, this mpq reads up to 2: upgrade mpq"),
        (None, "p.yaml is not a plan: it has no mpq version"),
        ("1", "p.yaml is not a plan: it has no mpq version"),
    ],
)
def test_newer_versions_and_foreign_files_are_refused(found: object, message: str) -> None:
    with pytest.raises(FormatError) as error:
        check_version(found, supported=2, path="p.yaml", kind="a plan")
    assert str(error.value) == message


def lines(path: Path, on_note: Callable[[str], None] | None = None) -> list[Any]:
    return [unsealed(line.rstrip(b"\n")) for _, line in journal_lines(path, on_note=on_note)]


def journal(path: Path, count: int) -> Journal:
    made = Journal.create(path, {"n": 0})
    for n in range(1, count):
        made.append({"n": n})
    made.close()
    return made


def test_a_journal_reads_back_what_was_appended(tmp_path: Path) -> None:
    journal(tmp_path / "j", 4)
    assert lines(tmp_path / "j") == [{"n": n} for n in range(4)]


@pytest.mark.parametrize("cut", range(1, LINE + 2))
def test_a_line_that_was_cut_off_is_dropped_and_appending_goes_on_after_the_last_whole_one(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    made = journal(path, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    whole = 3 - (cut + LINE - 1) // LINE
    assert lines(path) == [{"n": n} for n in range(whole)]
    made.append({"n": 9})
    made.append({"n": 10})
    made.close()
    assert lines(path) == [*({"n": n} for n in range(whole)), {"n": 9}, {"n": 10}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * (LINE_BYTES + 1), f", line 1 has more than {LINE_BYTES:,} bytes: the file is damaged, run `mpq analyze` again"),
        (b"", " holds no whole line: run `mpq analyze` again"),
        (b'{"n":0}', " holds no whole line: run `mpq analyze` again"),
    ],
)
def test_a_damaged_journal_names_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(FormatError) as error:
        lines(tmp_path / "j")
    assert str(error.value) == f"{tmp_path / 'j'}{message}"


def test_every_changed_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    made = Journal.create(tmp_path / "j", {"layer": "a", "errors": [0.25, None]})
    made.append({"n": 1})
    made.close()
    whole = (tmp_path / "j").read_bytes()
    for place in range(whole.index(b',"crc"')):
        for other in (whole[place] ^ 1, whole[place] ^ 32):
            (tmp_path / "j").write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
            with pytest.raises(FormatError, match=r"/j, line 1: .*; the file is damaged, run `mpq analyze` again$"):
                lines(tmp_path / "j")


def test_the_remedies_are_those_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = tmp_path / "j", list[str]()
    for content in (b'{"n":0,"crc":"00000000"}\n{"n":1}\n', b"", b"[" * (LINE_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(FormatError) as error:
            list(journal_lines(path, remedy="begin again", smaller="write less"))
        found.append(str(error.value))
    monkeypatch.setattr("mpq.files.SENSITIVITY_BYTES", 1)
    with pytest.raises(FormatError, match=r"which is too large to be right: write less$"):
        list(journal_lines(path, remedy="begin again", smaller="write less"))
    assert found == [
        f"{path}, line 1: its checksum does not match; the file is damaged, begin again",
        f"{path} holds no whole line: begin again",
        f"{path}, line 1 has more than {LINE_BYTES:,} bytes: the file is damaged, begin again",
    ]


def test_a_shared_journal_waits_for_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal(path, 1)
    made = Journal(path, shared=True)
    made.append({"n": 1})
    with path.open("ab") as other, exclusive(other.fileno()):
        thread = Thread(target=made.append, args=({"n": 3},))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        other.write(journal_line({"n": 2}))
        other.flush()
    thread.join()
    made.close()
    assert lines(path) == [{"n": n} for n in range(4)]


def test_lines_of_before_there_were_checksums_are_read(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"n":0}\n{}\n{"n":1,"crcs":"12345678"}\n')
    assert lines(tmp_path / "j") == [{"n": 0}, {}, {"n": 1, "crcs": "12345678"}]


@pytest.mark.parametrize("end", [b'{"n":', b'{"n":7', b"\0" * 40, b"\0" * 40 + b"\n", b'{"n":7,"crc":"00000000"}\n', b"x" * (1 << 17)])
def test_a_torn_end_is_left_out_with_a_note_and_cut_off_before_appending(tmp_path: Path, end: bytes) -> None:
    made, told = journal(tmp_path / "j", 3), list[str]()
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + end)
    assert lines(tmp_path / "j", on_note=told.append) == [{"n": n} for n in range(3)]
    assert told == [f"{tmp_path / 'j'}, line 4: cut off while it was written, so left out"]
    made.append({"n": 3})
    made.close()
    assert (tmp_path / "j").read_bytes() == whole + journal_line({"n": 3})


def test_a_missing_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as error:
        lines(tmp_path / "j")
    assert str(error.value) == f"cannot read {tmp_path / 'j'}: No such file or directory"


def test_a_full_disk_while_appending_says_that_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = journal(tmp_path / "j", 2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as error:
        made.append({"n": 2})
    made.close()
    message = "No space left on device; free some space and run the command again, it resumes"
    assert str(error.value) == f"cannot write {tmp_path / 'j'}: {message}"


def test_what_has_no_first_bytes_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(bytes(PREFIX + 1))
    assert len(first_bytes(tmp_path / "full", error=FormatError, remedy="name a plan")) == PREFIX
    for name, told in (("none", "does not exist"), ("empty", "is empty"), ("", "is a folder")):
        with pytest.raises(FormatError, match=f"^it {told}: name a plan$"):
            first_bytes(tmp_path / name, error=FormatError, remedy="name a plan", name="it")


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes")
def test_a_pipe_or_a_device_is_refused_at_once_by_every_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(OSError, match="it is a pipe or a device, not a file: write it to a file first"):
            open_file(tmp_path / name)
        with pytest.raises(FormatError, match="it is a pipe or a device, not a file"):
            first_bytes(tmp_path / name, error=FormatError, remedy="name a plan")
        with pytest.raises(FormatError, match="it is a pipe or a device, not a file"):
            read_bytes(tmp_path / name, error=FormatError, absent="name a plan")
        with pytest.raises(FormatError, match="it is a pipe or a device, not a file"):
            lines(tmp_path / name)
    (tmp_path / "file").write_bytes(b"whole")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"whole"
