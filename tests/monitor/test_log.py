from pathlib import Path

import pytest
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.errors import FormatError
from mpq.monitor.baseline import Baseline, write_baseline
from mpq.monitor.log import alarms_of, append, read_last
from mpq.monitor.watch import monitor
from tests.monitor.conftest import data, model, run


def test_a_log_is_judged_on_the_command_line(baseline: Baseline, tmp_path: Path) -> None:
    artifact, log = tmp_path / "model.mpq.safetensors", tmp_path / "log.jsonl"
    write_baseline(baseline, artifact)
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, data(1))
        append(watching, log)
        assert alarms_of(read_last(log), baseline) == []
        done = CliRunner().invoke(app, ["monitor", "check", str(log), "--against", str(artifact)])
        assert (done.exit_code, done.stdout) == (0, f"ok    {log}: 60 of 60 calls seen, nothing has drifted\n")
        run(module, data(1, calls=200, change=lambda x: x * 9))
        seen = watching.alarms()
        append(watching, log)
        assert alarms_of(read_last(log), baseline) == seen
        assert watching.alarms() == []
    done = CliRunner().invoke(app, ["monitor", "check", str(log), "--against", str(artifact)])
    assert done.exit_code == 1
    assert done.stdout.startswith(f"FAIL  {log}: drift in '0.input': stability index ")
    unknown = CliRunner().invoke(app, ["monitor", "watch", str(log), "--against", str(artifact)])
    assert (unknown.exit_code, unknown.stderr) == (2, "mpq: 'watch' is not an action of mpq monitor: write check\n")


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"other": 1}\n')
    with pytest.raises(FormatError, match="log"):
        read_last(path)
