import importlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.apply.run import Applied, apply
from mpq.data.dataset import Data
from mpq.errors import UsageError
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import Plan
from mpq.recovery.registry import STEPS
from tests.models.small import data, inputs, mlp


def many() -> Data:
    return data(256, batch_size=32)


def planned_mlp(scheme: str = "int3") -> tuple[nn.Module, Plan]:
    module = mlp()
    table = mpq.analyze(module, many(), candidates=(scheme,), quantizer="rtn", method="weight", metric="relative_mse")
    return module, mpq.search(table, "16bits").plan


def applied(module: nn.Module, plan: Plan, folder: Path, *, tune: bool = True) -> Applied:
    return apply(module, plan, folder / "a.mpq.safetensors", data=many(), sequential=False, reconstruct=False, tune=tune)


def fresh_error(module: nn.Module, artifact: Path) -> float:
    """Of the artifact on samples that nothing has seen."""
    return mpq.evaluate(module, mpq.load(artifact, mlp(1)), [inputs(64, 8, seed=9)])["relative_mse"].quantized


def test_coarse_weights_are_tuned_and_the_artifact_is_better_at_the_same_size(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    without = applied(module, plan, tmp_path, tune=False)
    before = fresh_error(module, without.path)
    assert without.decision("tuning").reason == "skipped: switched off"
    assert "tuning" not in read_artifact_header(without.path).recovery
    done = applied(module, plan, tmp_path)
    tuning, corrected = done.decision("tuning"), without.decision("bias_correction")
    assert tuning.kept
    assert tuning.before is not None
    assert tuning.after is not None
    assert tuning.stderr is not None
    assert tuning.after < tuning.before == (corrected.after if corrected.kept else corrected.before)
    figures = f"relative MSE {tuning.before:.4g} -> {tuning.after:.4g} on 64 held-out samples"
    parts = "the scales and codes of 3 layers and 5 vectors"
    assert tuning.line == f"Tuning kept for {parts}: {figures}, 16 passes over 168 samples ({tuning.seconds:.0f} s)"
    assert tuning.details == {"passes": 16, "of": 16, "samples": 168, "layers": 3, "vectors": 5, "codes": True}
    assert done.file_bytes == without.file_bytes == plan.size.file_bytes
    kept = [decision.name for decision in done.decisions if decision.kept]
    assert list(read_artifact_header(done.path).recovery) == kept
    assert "tuning" in kept
    assert fresh_error(module, done.path) < 0.7 * before


def test_the_same_plan_and_data_give_the_same_file(tmp_path: Path) -> None:
    module, plan = planned_mlp("int4-g8")
    first = applied(module, plan, tmp_path).path.read_bytes()
    assert applied(module, plan, tmp_path).path.read_bytes() == first


def test_what_does_not_help_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, plan = planned_mlp()
    without = applied(module, plan, tmp_path, tune=False).path.read_bytes()
    tuner = importlib.import_module("mpq.recovery.tuning")
    found = tuner.tune

    def spoiled(*arguments: Any, **choices: Any) -> Any:
        tuned = found(*arguments, **choices)
        return replace(tuned, vectors={name: torch.randn(vector.shape) for name, vector in tuned.vectors.items()})

    monkeypatch.setattr(tuner, "tune", spoiled)
    done = applied(module, plan, tmp_path)
    assert not done.decision("tuning").kept
    assert done.decision("tuning").reason.startswith("not kept: relative MSE ")
    assert done.decision("tuning").reason.endswith(" on 64 held-out samples, significantly worse, 16 passes over 168 samples")
    assert done.path.read_bytes() == without


def test_no_recovery_means_no_tuning_either(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), recovery=False)
    assert [decision.reason for decision in done.decisions] == len(STEPS) * ["skipped: switched off"]


def test_without_data_nothing_is_tuned(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors")
    assert done.decision("tuning").reason == "skipped: no data to decide with"


def test_models_without_gradients_are_applied_untuned_with_the_reason(tmp_path: Path) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = self.body(x)
            return found

    module = Frozen().eval()
    table = mpq.analyze(module, many(), candidates=("int3",), quantizer="rtn", method="weight", metric="relative_mse")
    done = applied(module, mpq.search(table, "16bits").plan, tmp_path)
    assert done.decision("tuning").reason.startswith("skipped: no gradient flows from relative_mse to the weights (")
    assert done.path.exists()


def test_a_metric_without_gradient_leaves_the_artifact_untuned(tmp_path: Path) -> None:
    module = mlp()
    table = mpq.analyze(module, many(), candidates=("int3",), quantizer="rtn", method="measure", metric="top1")
    done = applied(module, mpq.search(table, "16bits").plan, tmp_path)
    assert done.decision("tuning").reason.startswith("skipped: no gradient flows from top1 to the weights (")


def test_a_single_held_out_sample_is_too_few_to_judge_by(tmp_path: Path) -> None:
    module, few = mlp(), data(3)
    plan = mpq.search(mpq.analyze(module, few, candidates=("int2",), quantizer="rtn", method="weight"), "16bits").plan
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=few)
    assert [decision.reason for decision in done.decisions] == len(STEPS) * ["skipped: 1 held-out sample is too few to decide with"]


def test_the_emergency_stop_is_printed_and_recorded(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), sequential=False, reconstruct=False, tune_minutes=1e-9)
    decided, header = done.decision("tuning"), read_artifact_header(done.path)
    assert (decided.kept, decided.stopped) == (False, True)
    stop = "stopped by the limit of 1e-09 minutes (--tune-minutes)"
    assert decided.reason == f"skipped: no gain on the samples kept aside, 0 of 16 passes over 168 samples, {stop}"
    assert header.stopped == ("tuning",)
    assert "tuning" not in header.recovery


def test_less_work_means_fewer_passes_on_every_machine_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, plan = planned_mlp()
    path = tmp_path / "a.mpq.safetensors"
    found = apply(module, plan, path, data=many(), sequential=False, reconstruct=False, tune_work=3e-6)
    decided, content = found.decision("tuning"), path.read_bytes()
    assert 4 <= decided.details["passes"] == decided.details["of"] < 16
    assert not decided.stopped
    ticks = itertools.count(0.0, 3.0)  # a machine on which every look at the clock is three seconds later
    monkeypatch.setattr("mpq.recovery.base.time.monotonic", lambda: next(ticks))
    slow = apply(module, plan, path, data=many(), sequential=False, reconstruct=False, tune_work=3e-6)
    assert (slow.decision("tuning").seconds or 0) > 100
    assert path.read_bytes() == content


def test_no_time_at_all_is_refused(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    with pytest.raises(UsageError, match=r"^0 minutes is not enough time to tune: give a positive number, or disable tuning$"):
        apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), tune_minutes=0)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_reported_step_by_step(tmp_path: Path) -> None:
    seen = list[tuple[int, int, str]]()
    module, plan = planned_mlp()
    apply(
        module,
        plan,
        tmp_path / "a.mpq.safetensors",
        data=many(),
        sequential=False,
        reconstruct=False,
        on_recovery=lambda name: lambda *call: seen.append(call),
    )
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1] == (len(seen), len(seen), "pass 16 of 16")
