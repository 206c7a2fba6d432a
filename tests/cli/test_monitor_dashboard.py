import json
from pathlib import Path

import pytest

from mpq.monitor.dashboard import dashboard
from tests.cli.typed import done


def test_the_dashboard_goes_to_stdout_or_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(done("monitor dashboard").out) == dashboard()
    assert done("monitor dashboard -o board.json").out == ""
    assert json.loads(Path("board.json").read_text()) == dashboard()
