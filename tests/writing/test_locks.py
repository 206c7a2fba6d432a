import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mpq.errors import HeldError, OutputError
from mpq.writing.locks import held, refuse_held
from tests.cli.typed import environment

HOLDER = """
import sys, time
from pathlib import Path
from mpq.writing.locks import held
with held(Path(sys.argv[1]), work="analysis"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holding(path: Path) -> subprocess.Popen[str]:
    """A process that has `path` until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_at_work_and_what_to_do(tmp_path: Path) -> None:
    process = holding(tmp_path / "a")
    with pytest.raises(HeldError) as error:
        refuse_held(tmp_path / "a", work="analysis")
    assert re.fullmatch(
        rf"another analysis is writing {re.escape(str(tmp_path / 'a'))} \(process {process.pid} on {re.escape(socket.gethostname())}, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+\): wait until it ends, or write elsewhere",
        str(error.value),
    )
    process.communicate()
    refuse_held(tmp_path / "a", work="analysis")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    process = holding(tmp_path / "a")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with held(tmp_path / "a", work="analysis"), pytest.raises(HeldError, match=f"process {os.getpid()} on "):
        refuse_held(tmp_path / "a", work="analysis")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["symlink", "hard link", "folder"])
def test_another_name_of_the_file_is_the_same_file(tmp_path: Path, link: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").touch()
    other = tmp_path / "b"
    if link == "symlink":
        other.symlink_to(tmp_path / "one" / "a")
    elif link == "hard link":
        other.hardlink_to(tmp_path / "one" / "a")
    else:
        (tmp_path / "two").symlink_to("one")
        other = tmp_path / "two" / "a"
    with held(tmp_path / "one" / "a", work="analysis"), pytest.raises(HeldError, match=f"^another analysis is writing {other} "):
        refuse_held(other, work="analysis")
    refuse_held(other, work="analysis")


def test_a_file_of_the_same_name_elsewhere_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with held(tmp_path / "a", work="analysis"):
        refuse_held(tmp_path / "one" / "a", work="analysis")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as error:
        refuse_held(tmp_path / "none" / "a", work="analysis")
    assert str(error.value) == f"cannot write {tmp_path / 'none' / 'a'}: No such file or directory; choose another place with --output"


@pytest.mark.skipif(os.name != "posix", reason="locks by flock")
def test_where_there_are_no_locks_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", missing)
    with held(tmp_path / "a", work="analysis"):
        (tmp_path / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
