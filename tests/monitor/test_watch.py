"""A monitor sees a share of the calls, finds what has drifted, and leaves the model as it was."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.data.batch import Batch
from mpq.errors import FormatError, UsageError
from mpq.monitor.alarms import Alarm
from mpq.monitor.baseline import Baseline, baseline_of, baseline_path, read_baseline, write_baseline
from mpq.monitor.log import alarms_of, append, read_last
from mpq.monitor.watch import Monitor


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def data(seed: int, *, calls: int = 60, change: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [change(torch.randn(8, 16, generator=generator)) for _ in range(calls)]


@pytest.fixture
def baseline() -> Baseline:
    return baseline_of(model(), [Batch((x,)) for x in data(0)], layers=["0", "2"])


def run(module: nn.Module, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        for x in inputs:
            module(x)


def found(alarms: list[Alarm]) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in alarms}


def test_the_baseline_has_a_sketch_of_each_watched_tensor(baseline: Baseline) -> None:
    assert set(baseline.tensors) == {"input", "0.input", "2.input", "output", "output entropy", "output margin"}
    assert baseline.tensors["input"].values == 60 * 8 * 16
    assert max(baseline.noise.values()) < 0.25


def test_data_of_the_same_kind_raises_no_alarm_in_10000_samples(baseline: Baseline) -> None:
    module = model()
    with Monitor(module, baseline, sample=1.0) as monitor:
        run(module, data(1, calls=1250))
        assert (monitor.calls, monitor.sampled, monitor.alarms()) == (1250, 1250, [])


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        (lambda x: x * 3, ("drift", "input")),
        (lambda x: x * 64, ("range", "input")),
        (lambda x: x.where(x < 2, torch.nan), ("not finite", "2.input")),
        (lambda x: x * 0.25, ("drift", "output margin")),
    ],
)
def test_changed_data_is_found(baseline: Baseline, change: Callable[[Tensor], Tensor], alarm: tuple[str, str]) -> None:
    module = model()
    with Monitor(module, baseline, sample=1.0) as monitor:
        run(module, data(2, change=change))
        assert alarm in found(monitor.alarms())


def test_a_share_of_the_calls_is_seen_the_same_for_the_same_seed(baseline: Baseline) -> None:
    module = model()
    seen = []
    for _ in range(2):
        with Monitor(module, baseline, sample=0.1, seed=3) as monitor:
            run(module, data(1, calls=300))
            seen.append(monitor.sampled)
    assert seen[0] == seen[1]
    assert 15 <= seen[0] <= 45


def test_the_model_is_as_it_was(baseline: Baseline) -> None:
    module, x = model(), data(5)[0]
    before = module(x)
    monitor = Monitor(module, baseline, sample=1.0)
    assert torch.equal(module(x), before)
    with pytest.raises(RuntimeError):
        module(torch.randn(2, 3))
    assert not module[0]._forward_pre_hooks
    monitor.close()
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_a_shadow_compares_with_the_reference(baseline: Baseline) -> None:
    reference = model()
    broken = copy.deepcopy(reference)
    with torch.no_grad():
        broken.get_parameter("2.weight").mul_(-8)
    for module, alarmed in ((copy.deepcopy(reference), set()), (broken, {("kl", "output"), ("agreement", "output")})):
        with Monitor(module, baseline, sample=0.0, shadow=1.0, reference=reference, most_kl=0.05, least_agreement=0.9) as monitor:
            run(module, data(1, calls=400))
            assert found(monitor.alarms()) == alarmed
            assert monitor.agreement.count == 400


def test_wrong_shares_are_refused(baseline: Baseline) -> None:
    with pytest.raises(UsageError, match="sample=2 is not a share of calls: give a number from 0 to 1"):
        Monitor(model(), baseline, sample=2)
    with pytest.raises(UsageError, match=r"shadow=0\.5 needs the unquantized model: give reference="):
        Monitor(model(), baseline, shadow=0.5)
    with pytest.raises(UsageError, match="1 batches are too few for a baseline"):
        baseline_of(model(), [Batch((torch.randn(2, 16),))])


def test_a_baseline_reads_back(baseline: Baseline, tmp_path: Path) -> None:
    artifact = tmp_path / "model.mpq.safetensors"
    path = write_baseline(baseline, artifact)
    assert path == tmp_path / "model.mpq.safetensors.monitor.json" == baseline_path(path)
    assert read_baseline(artifact) == baseline
    path.write_text(path.read_text().replace('"first":', '"first":9', 1))
    with pytest.raises(FormatError):
        read_baseline(artifact)


def test_a_log_is_judged_on_the_command_line(baseline: Baseline, tmp_path: Path) -> None:
    artifact, log = tmp_path / "model.mpq.safetensors", tmp_path / "log.jsonl"
    write_baseline(baseline, artifact)
    module = model()
    with Monitor(module, baseline, sample=1.0) as monitor:
        run(module, data(1))
        append(monitor, log)
        assert alarms_of(read_last(log), baseline) == []
        done = CliRunner().invoke(app, ["monitor", "check", str(log), "--against", str(artifact)])
        assert (done.exit_code, done.stdout) == (0, f"ok    {log}: 60 of 60 calls seen, nothing has drifted\n")
        run(module, data(1, calls=200, change=lambda x: x * 9))
        seen = monitor.alarms()
        append(monitor, log)
        assert alarms_of(read_last(log), baseline) == seen
        assert monitor.alarms() == []
    done = CliRunner().invoke(app, ["monitor", "check", str(log), "--against", str(artifact)])
    assert done.exit_code == 1
    assert done.stdout.startswith(f"FAIL  {log}: drift in '0.input': stability index ")
    unknown = CliRunner().invoke(app, ["monitor", "watch", str(log), "--against", str(artifact)])
    assert (unknown.exit_code, unknown.stderr) == (2, "mpq: 'watch' is not an action of mpq monitor: write check\n")


def test_prometheus_reads_the_figures(baseline: Baseline) -> None:
    client = pytest.importorskip("prometheus_client")
    from mpq.monitor.prometheus import Metrics

    module, registry = model(), client.CollectorRegistry()
    with Monitor(module, baseline, sample=1.0, shadow=1.0, reference=model()) as monitor:
        registry.register(Metrics(monitor))
        run(module, data(1))
        text = client.generate_latest(registry).decode()
    assert "mpq_calls_total 60.0\n" in text
    assert 'mpq_beyond_range{tensor="input"} 0.0\n' in text
    assert "mpq_alarms 0.0\n" in text
    assert "mpq_agreement 1.0\n" in text
