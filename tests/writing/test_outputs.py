import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mpq.errors import OutputError
from mpq.files import atomic_write, write_text
from mpq.writing.outputs import own_mark, refuse_inputs, refuse_special
from tests.cli.typed import environment

WRITER = """
import sys
from pathlib import Path
from mpq.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"new")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def writing(path: Path) -> subprocess.Popen[str]:
    """A process that is writing `path` until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def made(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("target" if kind == "link" else "nowhere")


@pytest.mark.skipif(os.name != "posix", reason="pipes and sockets are files on POSIX systems")
@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link", "dangling link"])
def test_what_is_not_a_plain_file_is_refused_and_stays(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    (tmp_path / "target").write_text("old")
    made(kind, Path("a"))
    before = os.lstat("a")
    words = {
        "link": "it is a link to target; name that file itself, or",
        "dangling link": "it is a link to nowhere; name that file itself, or",
    }.get(kind, f"it is a {kind};")
    with pytest.raises(OutputError) as error:
        write_text(Path("a"), "new")
    assert str(error.value) == f"cannot write a: {words} choose another place with --output"
    assert (os.lstat("a").st_mode, os.lstat("a").st_ino) == (before.st_mode, before.st_ino)
    assert (tmp_path / "target").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "target"]


@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX systems")
def test_devices_and_standard_output_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(OutputError, match=r"^cannot write /dev/null: it is a device; choose another place with --output$"):
        refuse_special(Path("/dev/null"))
    with pytest.raises(OutputError, match=r"^cannot write /dev/stdout: it is a link to "):
        refuse_special(Path("/dev/stdout"))
    with pytest.raises(OutputError, match=r"^cannot write -: mpq writes files, not to standard output; name a file"):
        refuse_special(Path("-"))


def test_a_link_that_comes_up_while_the_file_is_written_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")

    def write() -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            (tmp_path / "a").symlink_to("old")

    with pytest.raises(OutputError, match="it is a link to old; name that file itself"):
        write()
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "old"]


@pytest.mark.parametrize("name", ["model.pt", "same/model.pt", "linked.pt"])
def test_an_input_is_refused_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    model = tmp_path / "model.pt"
    model.touch()
    (tmp_path / "same").symlink_to(tmp_path)
    (tmp_path / "linked.pt").hardlink_to(model)
    with pytest.raises(OutputError) as error:
        refuse_inputs(tmp_path / name, [None, tmp_path / "none", model])
    reason = f"it is an input of this command ({model}); choose another place with --output"
    assert str(error.value) == f"cannot write {tmp_path / name}: {reason}"
    refuse_inputs(tmp_path / "other", [model])


def test_files_in_a_folder_that_is_read_are_inputs_but_for_those_that_mpq_wrote(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    for name in ("config.json", "model.safetensors", "llama.sensitivity.jsonl"):
        (tmp_path / "llama" / name).touch()
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(OutputError, match=f"it is an input of this command .*{name}"):
            refuse_inputs(tmp_path / "llama" / name, [tmp_path / "llama"])
    for name in ("llama.sensitivity.jsonl", "new.json"):
        refuse_inputs(tmp_path / "llama" / name, [tmp_path / "llama"])


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_file(tmp_path: Path) -> None:
    process = writing(tmp_path / "a")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    write_text(tmp_path / "b", "another file")
    assert left.exists()
    write_text(tmp_path / "a", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_living_process_is_writing_stays_and_the_last_one_wins(tmp_path: Path) -> None:
    process = writing(tmp_path / "a")
    write_text(tmp_path / "a", "mine")
    assert (tmp_path / "a").read_text() == "mine"
    process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_writers_in_one_process_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "a") as other:
        one.write(b"one")
        other.write(b"other")
    assert (tmp_path / "a").read_bytes() == b"one"  # the outer one ends last
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(os.name != "posix", reason="asks the system for a process by its number")
def test_older_and_other_hosts_leftovers_are_told_apart(tmp_path: Path) -> None:
    dead, living = tmp_path / f".a.{ended()}.partial", tmp_path / f".a.{os.getppid()}.partial"
    elsewhere, long_ago = tmp_path / ".a.0123abcd-1-0.partial", tmp_path / ".a.0123abcd-2-0.partial"
    own, foreign = tmp_path / f".a.{own_mark()}.partial", tmp_path / ".a.notes.partial"
    for path in (dead, living, elsewhere, long_ago, own, foreign):
        path.touch()
    os.utime(long_ago, (0, 0))
    write_text(tmp_path / "a", "text")
    assert {path for path in tmp_path.iterdir() if path.name != "a"} == {living, elsewhere, foreign}
