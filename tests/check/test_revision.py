import tempfile
from pathlib import Path

import pytest

from mpq.check.revision import check_revision, copy_at, read_plan_at
from mpq.errors import FormatError, UsageError
from mpq.records.plan import write_plan
from tests.check.making import commit, plan_of

OLD, NEW = plan_of("int4 int4 int8"), plan_of("int8 int8 int8")


def bytes_at(revision: str, path: str) -> bytes:
    """What a file held at a revision."""
    with tempfile.TemporaryDirectory() as folder:
        copy_at(revision, path, Path(folder) / "copy")
        return (Path(folder) / "copy").read_bytes()


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose one commit has the old plan, twice, and an odd file; the working tree has the new one."""
    (tmp_path / "deep").mkdir()
    for name in ("plan.yaml", "deep/plan.yaml"):
        write_plan(OLD, tmp_path / name)
    (tmp_path / "deep" / "a: b.bin").write_bytes(b"\x00\xff\r\n")
    commit(tmp_path)
    write_plan(NEW, tmp_path / "plan.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_at_a_revision_is_the_one_that_was_committed() -> None:
    assert read_plan_at("HEAD:plan.yaml").layers == OLD.layers
    assert read_plan_at("plan.yaml").layers == NEW.layers


def test_a_file_with_a_colon_in_its_name_is_a_file() -> None:
    write_plan(NEW, Path("HEAD:plan.yaml"))
    assert read_plan_at("HEAD:plan.yaml").layers == NEW.layers


def test_a_relative_path_starts_in_the_current_folder_and_an_absolute_one_anywhere(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (repository / "deep" / "plan.yaml").read_bytes()
    assert bytes_at("HEAD", "deep/plan.yaml") == content
    monkeypatch.chdir(repository / "deep")
    assert bytes_at("HEAD", "plan.yaml") == bytes_at("HEAD", "./plan.yaml") == bytes_at("HEAD", "../plan.yaml") == content
    monkeypatch.chdir("/")
    assert bytes_at("HEAD", str(repository / "deep" / "plan.yaml")) == content


def test_contents_come_back_to_the_byte() -> None:
    assert bytes_at("HEAD", "deep/a: b.bin") == b"\x00\xff\r\n"


def test_what_was_there_but_is_no_plan_is_refused() -> None:
    with pytest.raises(FormatError):
        read_plan_at("HEAD:deep/a: b.bin")


@pytest.mark.parametrize(
    ("revision", "path", "reason"),
    [
        ("HEAD", "none.yaml", "cannot read HEAD:none.yaml: path 'none.yaml' does not exist in 'HEAD'"),
        ("nowhere", "plan.yaml", "cannot read nowhere:plan.yaml: invalid object name 'nowhere'."),
        ("", "plan.yaml", "':plan.yaml' is not REVISION:PATH: write for example HEAD~1:plan.yaml"),
        ("--output=x", "plan.yaml", "'--output=x:plan.yaml' is not REVISION:PATH: write for example HEAD~1:plan.yaml"),
        ("HEAD", "a\0b", r"'HEAD:a\x00b' is not REVISION:PATH: write for example HEAD~1:plan.yaml"),
    ],
)
def test_what_git_does_not_know_is_refused_in_one_line(revision: str, path: str, reason: str) -> None:
    with pytest.raises(UsageError) as error:
        bytes_at(revision, path)
    assert str(error.value) == reason
    assert not Path("x").exists()


@pytest.mark.parametrize("revision", ["HEAD", "HEAD^{commit}", "@"])
def test_revisions_that_git_knows_pass(revision: str) -> None:
    check_revision(revision)


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("HEAD~1", "cannot read revision HEAD~1: git does not know it"),
        ("HEAD:plan.yaml", "cannot read revision HEAD:plan.yaml: "),
        ("-h", "'-h:PATH' is not REVISION:PATH: write for example HEAD~1:plan.yaml"),
    ],
)
def test_revisions_that_git_does_not_know_are_refused(revision: str, reason: str) -> None:
    with pytest.raises(UsageError) as error:
        check_revision(revision)
    assert str(error.value).startswith(reason)


def test_without_git_the_remedy_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match=r"^cannot read HEAD:plan.yaml: git is not installed; name a file instead$"):
        read_plan_at("HEAD:plan.yaml")


def test_outside_a_repository_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path.parent / "outside").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path.parent / "outside")
    with pytest.raises(UsageError, match=r"^cannot read HEAD:plan.yaml: not a git repository"):
        read_plan_at("HEAD:plan.yaml")
