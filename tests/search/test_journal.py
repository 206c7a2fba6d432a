"""The journal of a study opens again after kills and full disks."""

import importlib
import json
import os
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mpq.errors import FormatError, OutputError
from mpq.search.journal import StudyJournal
from mpq.search.storage import journal_beside


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


def test_a_journal_cut_off_anywhere_opens_and_resumes(tmp_path: Path) -> None:
    path = begun(tmp_path)
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({*range(0, len(whole), 31), *(end + side for end in ends for side in (-1, 0, 1) if end + side < len(whole))}):
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
    reason = "its checksum does not match; the file is damaged: remove it, and the search starts over"
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


def test_what_is_noted_of_a_trial_is_synced_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun(tmp_path)
    study = optuna.load_study(study_name="a", storage=journal_beside(tmp_path / "a.sensitivity.jsonl"))
    trial, synced = study.ask(), list[bytes]()
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    trial.set_user_attr("error", 0.25)
    trial.report(0.5, 1)
    assert synced == []
    assert b"0.25" in path.read_bytes()
    study.tell(trial, 3.0)
    assert synced == [path.read_bytes()]


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


def test_lines_are_read_from_any_number_on_again_and_again(tmp_path: Path) -> None:
    journal = StudyJournal(tmp_path / "j")
    assert list(journal.read_logs(0)) == []
    journal.append_logs([{"op": 1}, {"op": 2}])
    journal.append_logs([{"op": 3}])
    assert list(journal.read_logs(0)) == [{"op": 1}, {"op": 2}, {"op": 3}]
    assert list(journal.read_logs(2)) == [{"op": 3}]
    assert list(journal.read_logs(3)) == []
    StudyJournal(tmp_path / "j").append_logs([{"op": 4}])  # another process
    assert list(journal.read_logs(3)) == [{"op": 4}]
    assert list(StudyJournal(tmp_path / "j").read_logs(3)) == [{"op": 4}]


def test_a_journal_that_has_become_unwritable_is_one_line(tmp_path: Path) -> None:
    journal = StudyJournal(tmp_path / "j")
    (tmp_path / "j").unlink()
    with pytest.raises(OutputError) as error:
        journal.append_logs([{"op": 1}])
    assert str(error.value).startswith(f"cannot write {tmp_path / 'j'}: No such file or directory; ")


def test_a_line_that_is_not_an_object_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    journal = StudyJournal(tmp_path / "j")
    journal.append_logs([{"op": 1}])
    with (tmp_path / "j").open("ab") as file:
        file.write(b"[]\n")
    with pytest.raises(FormatError) as error:
        list(journal.read_logs(0))
    reason = "not a JSON object; the file is damaged: remove it, and the search starts over"
    assert str(error.value) == f"{tmp_path / 'j'}, line 2: {reason}"


def test_where_a_file_system_has_no_locks_those_of_optuna_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("mpq.search.journal")
    monkeypatch.setattr(module, "has_locks", lambda _: False)
    journal, path = StudyJournal(tmp_path / "j"), tmp_path / "j"
    there: list[bool] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        there.append(Path(f"{path}.lock").is_symlink())
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    journal.append_logs([{"op": 1}])
    assert there == [True]
    assert not Path(f"{path}.lock").is_symlink()
