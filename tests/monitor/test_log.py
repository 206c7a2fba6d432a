from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.errors import OutputError
from mpq.evidence.drift import alarms_of
from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline, write_baseline
from mpq.records.monitor_log import read_last, read_lines
from tests.monitor.conftest import data, model, run

KERNELS = "; which kernels ran is not known, because no layer is packed"


def test_a_log_is_judged_on_the_command_line(baseline: Baseline, tmp_path: Path) -> None:
    artifact, log = tmp_path / "model.mpq.safetensors", tmp_path / "log.jsonl"
    write_baseline(baseline, artifact)
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, data(1))
        append(watching, log)
        assert alarms_of(read_last(log), baseline) == []
        done = CliRunner().invoke(app, ["monitor", "check", str(log), "--against", str(artifact)])
        assert (done.exit_code, done.stdout) == (0, f"ok    {log}: 60 of 60 calls seen, nothing has drifted{KERNELS}\n")
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


class Scaled(nn.Module):
    """A model with a second input."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x if scale is None else x * scale


class Unnamed(nn.Module):
    """The same without names."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return args[0]


def test_a_kept_call_has_its_unnamed_inputs_beside_the_named(tmp_path: Path) -> None:
    module, x, scale = Scaled(), torch.randn(2, 16), torch.full((2, 1), 3.0)
    with monitor(module, Baseline({}, {}), sample=1.0, keep=2) as watching:
        module(x, scale=scale)
        module(x, scale)
        append(watching, tmp_path / "log.jsonl")
    named, unnamed = torch.load(tmp_path / "log.samples.pt", weights_only=True)
    assert list(named) == ["x", "scale"]
    assert torch.equal(named["x"], x)
    assert torch.equal(named["scale"], scale)
    assert [torch.equal(*pair) for pair in zip(unnamed, (x, scale), strict=True)] == [True, True]


def test_a_call_whose_inputs_cannot_be_named_is_not_kept(tmp_path: Path) -> None:
    module, x = Unnamed(), torch.randn(2, 16)
    with monitor(module, Baseline({}, {}), sample=1.0, keep=2) as watching:
        module(x, scale=x)
        module(x)
        append(watching, tmp_path / "log.jsonl")
    assert read_last(tmp_path / "log.jsonl").kept == 1
    assert [len(call) for call in torch.load(tmp_path / "log.samples.pt", weights_only=True)] == [1]


def test_a_line_that_a_kill_cut_off_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with monitor(Scaled(), Baseline({}, {}), sample=1.0) as watching:
        append(watching, path)
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:40])
        append(watching, path)
    assert path.read_bytes().startswith(whole)
    assert len(list(read_lines(path))) == 2


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "log.jsonl"
    with monitor(Scaled(), Baseline({}, {})) as watching, pytest.raises(OutputError) as error:
        append(watching, path)
    assert str(error.value) == f"cannot write {path}: No such file or directory; choose another place for the log"
