"""The storage of a study opens again after kills and full disks, and says what is wrong without passwords."""

import importlib
import json
import os
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mpq.errors import FormatError, MpqError, OutputError, UsageError
from mpq.search.storage import journal_beside, open_storage, storage_failures, without_password


def begun(folder: Path) -> Path:
    """A journal with two finished trials."""
    study = optuna.create_study(storage=journal_beside(folder / "a.sensitivity.jsonl"), study_name="a")
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    return folder / "a.study.journal"


def values(folder: Path) -> list[float | None]:
    return [trial.value for trial in optuna.load_study(study_name="a", storage=journal_beside(folder / "a.sensitivity.jsonl")).trials]


@pytest.mark.parametrize("end", [b"{", b'{"op_code":4,"wor', b"\0" * 50, b"\0" * 50 + b"\n", b'{"op_code":4,"crc":"00000000"}\n'])
def test_a_torn_end_is_passed_over_and_cut_off(tmp_path: Path, end: bytes) -> None:
    path = begun(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + end)
    assert values(tmp_path) == [1.0, 2.0]
    study = optuna.load_study(study_name="a", storage=journal_beside(tmp_path / "a.sensitivity.jsonl"))
    study.tell(study.ask(), 3.0)
    assert values(tmp_path) == [1.0, 2.0, 3.0]
    assert path.read_bytes().startswith(whole + b"{")


def test_a_journal_cut_off_at_any_byte_opens_and_goes_on(tmp_path: Path) -> None:
    path = begun(tmp_path)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        study = optuna.create_study(storage=journal_beside(tmp_path / "a.sensitivity.jsonl"), study_name="a", load_if_exists=True)
        study.tell(study.ask(), 7.0)
        finished = [value for value in values(tmp_path) if value is not None]
        assert finished == [*[1.0, 2.0][: len(finished) - 1], 7.0]


def test_a_changed_line_is_refused_by_its_number(tmp_path: Path) -> None:
    path = begun(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"op_code", b"op_cpde")
    path.write_bytes(b"".join(lines))
    with pytest.raises(FormatError) as error:
        journal_beside(tmp_path / "a.sensitivity.jsonl")
    reason = "its checksum does not fit; the file is damaged: remove it, and the search begins anew"
    assert str(error.value) == f"{path}, line 3: {reason}"


def test_optuna_reads_the_journal_and_mpq_one_of_optuna(tmp_path: Path) -> None:
    path = begun(tmp_path)
    assert len(optuna.load_study(study_name="a", storage=JournalStorage(JournalFileBackend(str(path)))).trials) == 2
    study = optuna.load_study(study_name="a", storage=JournalStorage(JournalFileBackend(str(path))))
    study.tell(study.ask(), 3.0)
    assert values(tmp_path) == [1.0, 2.0, 3.0]
    assert ["crc" in json.loads(line) for line in path.read_text().splitlines()][-2:] == [False, False]


def test_the_lock_of_a_killed_process_of_older_versions_holds_nobody_up(tmp_path: Path) -> None:
    path = begun(tmp_path)
    Path(f"{path}.lock").symlink_to(path)
    assert values(tmp_path) == [1.0, 2.0]
    study = optuna.load_study(study_name="a", storage=journal_beside(tmp_path / "a.sensitivity.jsonl"))
    study.tell(study.ask(), 3.0)
    assert values(tmp_path) == [1.0, 2.0, 3.0]


def test_a_full_disk_is_one_line_and_the_journal_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun(tmp_path)
    study = optuna.load_study(study_name="a", storage=journal_beside(tmp_path / "a.sensitivity.jsonl"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError) as error:
            study.ask()
    reason = "No space left on device; free some space and run the command again, it resumes"
    assert str(error.value) == f"cannot write {path}: {reason}"
    study = optuna.load_study(study_name="a", storage=journal_beside(tmp_path / "a.sensitivity.jsonl"))
    study.tell(study.ask(), 3.0)
    assert [value for value in values(tmp_path) if value is not None] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3@cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://host/db?user=me&password=s3cret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("sqlite:///study.db", "sqlite:///study.db"),
    ],
)
def test_passwords_are_not_shown(url: str, expected: str) -> None:
    assert without_password(url, url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/db?connect_timeout=1",
        "nothing://me:s3cret@host/db",
        "mysql://me:s3cret@host/db",
        "s3cret:s3cret@",
    ],
)
def test_no_password_is_in_a_message(url: str) -> None:
    with pytest.raises(UsageError) as error:
        open_storage(url, beside=Path())
    assert str(error.value).startswith("--storage '")
    assert url.startswith("s3cret") or "s3cret" not in str(error.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(UsageError) as error:
        open_storage("postgresql://me:s3cret@host/db", beside=Path())
    assert str(error.value).startswith("--storage 'postgresql://me:***@host/db' needs a driver that is not installed (")
    assert str(error.value).endswith("): pip install 'mpq[postgresql]'")


def test_what_a_database_says_during_a_search_is_one_line() -> None:
    from sqlalchemy.exc import OperationalError

    def lost() -> None:
        with storage_failures():
            raise OperationalError("SELECT 1", None, Exception("connection to postgresql://me:s3cret@host lost"))

    with pytest.raises(MpqError) as error:
        lost()
    assert str(error.value).startswith("the storage of the study failed (")
    assert str(error.value).endswith("): run the command again, it resumes")
    assert "s3cret" not in str(error.value)


URLS = [
    "postgresql://me:{}@host.invalid/db",
    "foo://a:{}@h",
    "mysql://u:{}@",
    "redis://:{}@h:99999999/",
    "nonsense://u:{}@h?password={}",
    "foo://h/db?user=a&password={}",
    "://u:{}@x",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("secret", ["hunter22", "p%40ss%2Fw0rd", "p@ss/w0rd", "x:y?z#9876"])
def test_a_message_about_a_storage_hides_its_password(tmp_path: Path, url: str, secret: str) -> None:
    with pytest.raises(UsageError) as error:
        open_storage(url.replace("{}", secret), beside=tmp_path / "t.sensitivity.jsonl")
    told = str(error.value)
    assert "***" in told
    for hidden in (secret, "p@ss/w0rd" if "%" in secret else secret, "w0rd", "9876", "hunter"):
        assert hidden not in told


def test_what_holds_no_password_is_shown_as_it_is() -> None:
    for url in ("sqlite:///study.db", "postgresql://host/db", "postgresql://me@host/db", ""):
        assert without_password(url, url) == url


@pytest.mark.parametrize(
    "line",
    [
        b'{"worker_id":"a"}',
        b'{"op_code":99,"worker_id":"a"}',
        b'{"op_code":"4","worker_id":"a"}',
        b'{"op_code":0,"worker_id":"a","study_name":"a","directions":[7]}',
        b'{"op_code":5,"worker_id":"a","trial_id":0,"param_name":"x","param_value_internal":0,"distribution":0.5}',
        b'{"op_code":6,"worker_id":"a","trial_id":0,"state":1,"values":[1.0],"datetime_complete":"0x0"}',
        b"[]",
    ],
)
def test_a_line_that_the_study_never_wrote_is_refused_in_one_line(tmp_path: Path, line: bytes) -> None:
    study = optuna.create_study(storage=journal_beside(tmp_path / "a.sensitivity.jsonl"), study_name="a")
    study.ask()
    path = tmp_path / "a.study.journal"
    path.write_bytes(path.read_bytes() + line + b"\n" + line + b"\n")
    with pytest.raises(FormatError, match="remove it, and the search begins anew") as error:
        journal_beside(tmp_path / "a.sensitivity.jsonl")
    assert "\n" not in str(error.value)


def test_a_journal_of_one_endless_line_or_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun(tmp_path)
    whole = path.read_bytes()
    module = importlib.import_module("mpq.search.journal")  # mpq.search is also the function
    monkeypatch.setattr(module, "LINE_BYTES", 5000)
    path.write_bytes(whole + bytes(5000))
    with pytest.raises(FormatError, match=r"line \d+ has more than 5,000 bytes: remove it"):
        journal_beside(tmp_path / "a.sensitivity.jsonl")
    monkeypatch.setattr(module, "STUDY_BYTES", len(whole) - 1)
    path.write_bytes(whole)
    with pytest.raises(FormatError, match=rf"has {len(whole):,} bytes, more than {len(whole) - 1:,}: remove it"):
        journal_beside(tmp_path / "a.sensitivity.jsonl")
