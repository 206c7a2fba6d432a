import errno
from pathlib import Path

import pytest
from typer.main import get_command

from mpq.cli import main
from mpq.cli.reference_page import commands_of
from mpq.distribution import VERSION
from mpq.errors import MpqError, UsageError
from tests.cli.typed import done, typed


def test_quiet_leaves_results_alone(folder: Path) -> None:
    assert done("--quiet analyze model.pt2 --num-samples 24").err == ""


def test_the_version_is_that_of_the_package() -> None:
    assert done("--version").out == f"mpq {VERSION}\n"


@pytest.mark.parametrize("name", [name for name, _ in commands_of(get_command(main.app))])
def test_every_command_has_help_with_an_example(name: str) -> None:
    told = done(f"{name} --help").out
    assert f"mpq {name}" in told
    assert done(f"{name} -h").out == told


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What `mpq show` raises."""
    raised: list[BaseException] = []

    def fail(*_: object) -> None:
        raise raised[0]

    monkeypatch.setattr("mpq.cli.show.kind_of", fail, raising=False)
    monkeypatch.setattr("mpq.records.file_kind.kind_of", fail)
    return raised


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a\nb"), 2, "a b"),
        (MpqError("wrong"), 3, "wrong"),
        (OSError(errno.ENOSPC, "No space left", "x.bin"), 3, "x.bin: No space left; free some space or choose another place, then run"),
        (OSError("odd"), 3, "odd; free some space or choose another place, then run the command again"),
        (MemoryError(), 3, "out of memory; use a machine with more memory, or a smaller file"),
        (KeyboardInterrupt(), 130, "interrupted; run the command again"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    folder: Path, failing: list[BaseException], error: BaseException, code: int, line: str
) -> None:
    failing.append(error)
    ran = typed("show plan.yaml")
    assert (ran.code, ran.out) == (code, "")
    (told,) = ran.err.splitlines()
    assert told.startswith(f"mpq: {line}")


def test_tracebacks_are_shown_where_they_are_wanted(folder: Path, failing: list[BaseException]) -> None:
    failing.append(MpqError("wrong"))
    err = typed("--verbose show plan.yaml").err
    assert err.startswith("Traceback ")
    assert err.splitlines()[-1] == "mpq: wrong"


def test_a_bug_is_not_hidden(folder: Path, failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError, match="bug"):
        typed("show plan.yaml")


def test_an_unknown_command_and_option_are_of_usage() -> None:
    for line in ("best", "show --best x", "eval"):
        assert typed(line).code == 2
