from pathlib import Path

import torch
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.evidence.drift import alarms_of
from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline, write_baseline
from mpq.records.monitor_log import read_last
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


def test_kept_inputs_are_written_next_to_the_log(baseline: Baseline, tmp_path: Path) -> None:
    module, inputs = model(), data(1, calls=30)
    with monitor(module, baseline, sample=1.0, keep=4) as watching:
        run(module, inputs)
        append(watching, tmp_path / "log.jsonl")
        assert watching.kept.items == []
    kept = torch.load(tmp_path / "log.samples.pt", weights_only=True)
    assert read_last(tmp_path / "log.jsonl").kept == len(kept) == 4
    assert all(any(torch.equal(call[0], x) for x in inputs) for call in kept)
