"""The storage of a study opens again after kills and full disks, and says what is wrong without passwords."""

from pathlib import Path

import optuna
import pytest

from mpq.errors import FormatError, MpqError, UsageError
from mpq.search.storage import journal_beside, open_storage, storage_failures, without_password


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
    assert str(error.value).endswith("): pip install 'mpq-torch[postgresql]'")


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
    with pytest.raises(FormatError, match="remove it, and the search starts over") as error:
        journal_beside(tmp_path / "a.sensitivity.jsonl")
    assert "\n" not in str(error.value)
