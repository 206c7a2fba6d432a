"""The cost of loading a model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from mpq.runtime import load_cost
from mpq.runtime.load_cost import Loading, measured


def test_loading_counts_the_memory_that_is_held() -> None:
    code = "import json; from torch import nn; from mpq.runtime.load_cost import measured; "
    code += "print(json.dumps(vars(measured(lambda: nn.Linear(2000, 2000)))))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # this process has memory to reuse
    found = Loading(**json.loads(ran.stdout))
    assert found.seconds > 0
    if found.own_bytes is not None and found.peak_bytes is not None:
        assert 15e6 < found.own_bytes < 25e6
        assert found.peak_bytes >= 0


def test_memory_is_the_difference_in_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t 400 kB\nVmRSS:\t 300 kB\nRssAnon:\t 100 kB\n")
    monkeypatch.setattr(load_cost, "_STATUS", status)

    def load() -> nn.Module:
        status.write_text("Name:\tpython\nVmHWM:\t 900 kB\nVmRSS:\t 700 kB\nRssAnon:\t 90 kB\n")
        return nn.Identity()

    found = measured(load)
    assert (found.own_bytes, found.resident_bytes, found.peak_bytes) == (0, 400 * 1024, 600 * 1024)
    assert found.seconds > 0


def test_where_the_system_does_not_say_only_the_time_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_cost, "_STATUS", tmp_path / "none")
    found = measured(nn.Identity)
    assert (found.own_bytes, found.resident_bytes, found.peak_bytes) == (None, None, None)
    assert found.seconds > 0


def test_an_error_of_loading_is_raised_as_it_is() -> None:
    def load() -> nn.Module:
        raise ValueError("bad file")

    with pytest.raises(ValueError, match=r"^bad file$"):
        measured(load)
