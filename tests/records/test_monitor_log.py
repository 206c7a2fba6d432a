from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.files import journal_line
from mpq.records.monitor_log import read_last, read_lines

MEAN = {"most": 1.0, "count": 0, "total": 0.0, "spread": 0.0}
LINE = {"mpq_monitor_log": 1, "time": 5.0, "calls": 9, "sampled": 2, "tensors": {}, "divergence": MEAN, "agreement": MEAN}


def test_lines_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(journal_line(LINE) + journal_line({**LINE, "calls": 11, "most_kl": 0.5}))
    assert [line.calls for line in read_lines(path)] == [9, 11]
    assert (read_last(path).calls, read_last(path).most_kl) == (11, 0.5)


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"other": 1}\n')
    with pytest.raises(FormatError, match="log"):
        read_last(path)
    path.write_bytes(journal_line({**LINE, "calls": -1}))
    with pytest.raises(FormatError, match="line 1"):
        list(read_lines(path))


def test_a_damaged_log_says_how_to_start_another(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"")
    with pytest.raises(FormatError) as error:
        read_last(path)
    assert str(error.value) == f"{path} holds no whole line: start a new log with mpq.monitor.log.append"
    path.write_bytes(journal_line(LINE).replace(b"9", b"8", 1) + journal_line(LINE))
    with pytest.raises(FormatError, match="line 1: its checksum does not match; the file is damaged, start a new log with"):
        read_last(path)
