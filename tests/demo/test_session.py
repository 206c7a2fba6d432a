import sys
from pathlib import Path

import pytest

from mpq.demo import session
from mpq.demo.session import HEAD, STEPS, printed, record


def test_both_streams_are_printed_in_order_without_spaces_at_the_ends(tmp_path: Path) -> None:
    assert printed("echo 'a  '; echo b >&2; pwd", tmp_path) == f"a\nb\n{tmp_path}\n"


def test_a_check_that_says_no_is_recorded_and_any_other_failure_stops_the_recording(tmp_path: Path) -> None:
    assert printed("echo no; exit 1", tmp_path) == "no\n"
    with pytest.raises(SystemExit, match=r"^echo bad; exit 3 failed with 3:\nbad\n$"):
        printed("echo bad; exit 3", tmp_path)


def test_progress_of_a_slow_machine_is_left_out(tmp_path: Path) -> None:
    assert printed("echo 'analyze 3/9, 12 s left: layer int4'; echo 'analyze done'", tmp_path) == "analyze done\n"


def test_the_terminal_has_80_columns_and_its_commands_are_those_of_this_python(tmp_path: Path) -> None:
    assert printed("echo $COLUMNS $OMP_NUM_THREADS", tmp_path) == "80 1\n"
    found = printed('python -c "import sys; print(sys.prefix)"', tmp_path)
    assert found == printed(f'{sys.executable} -c "import sys; print(sys.prefix)"', tmp_path)


def test_each_step_is_its_words_and_a_console_with_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def noted(command: str, folder: Path) -> str:
        assert (folder / "model.pt2").exists()
        ran.append(command)
        return f"result {len(ran)}\n"

    monkeypatch.setattr(session, "printed", noted)
    page = record(tmp_path)
    assert ran == [command for _, commands in STEPS for command in commands]
    assert page.startswith(HEAD)
    assert f"{STEPS[2][0]}\n\n```console\n$ {STEPS[2][1][0]}\nresult 3\n$ {STEPS[2][1][1]}\nresult 4\n```\n" in page
    assert page.count("```console\n") == len(STEPS)
