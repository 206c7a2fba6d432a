import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.apply.run import Applied, apply
from mpq.errors import UsageError
from mpq.models.batches import Data
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import Plan
from tests.models.small import data, inputs, mlp


def many() -> Data:
    return data(256, batch_size=32)


def planned_mlp(scheme: str = "int3") -> tuple[nn.Module, Plan]:
    module = mlp()
    table = mpq.analyze(module, many(), candidates=(scheme,), quantizer="rtn", method="weight", metric="relative_mse")
    return module, mpq.search(table, "16bits").plan


def applied(module: nn.Module, plan: Plan, folder: Path, *, tune: bool = True) -> Applied:
    return apply(module, plan, folder / "a.mpq.safetensors", data=many(), sequential=False, tune=tune)


def fresh_error(module: nn.Module, artifact: Path) -> float:
    """Of the artifact on samples that nothing has seen."""
    return mpq.evaluate(module, mpq.load(artifact, mlp(1)), [inputs(64, 8, seed=9)])["relative_mse"].quantized


def test_coarse_weights_are_tuned_and_the_artifact_is_better_at_the_same_size(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    without = applied(module, plan, tmp_path, tune=False)
    before = fresh_error(module, without.path)
    assert without.tuning.reason == "not tuned: as asked"
    assert not read_artifact_header(without.path).tuned
    done = applied(module, plan, tmp_path)
    tuning = done.tuning
    assert tuning.taken
    assert tuning.before is not None
    assert tuning.after is not None
    assert tuning.stderr is not None
    assert tuning.after < tuning.before == (without.correction.after if without.correction.taken else without.correction.before)
    figures = f"{tuning.before:.4g} ±{tuning.stderr[0]:.2g} without, {tuning.after:.4g} ±{tuning.stderr[1]:.2g} with"
    assert tuning.reason.startswith(f"tuned scales and codes of 3 layers and 5 vectors: relative_mse on 64 held-out samples {figures}")
    assert "; 16 passes over 168 samples in " in tuning.reason
    assert done.file_bytes == without.file_bytes == plan.size.file_bytes
    assert read_artifact_header(done.path).tuned
    assert read_artifact_header(done.path).corrected == done.correction.taken
    assert fresh_error(module, done.path) < 0.7 * before


def test_the_same_plan_and_data_give_the_same_file(tmp_path: Path) -> None:
    module, plan = planned_mlp("int4-g8")
    first = applied(module, plan, tmp_path).path.read_bytes()
    assert applied(module, plan, tmp_path).path.read_bytes() == first


def test_what_does_not_help_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, plan = planned_mlp()
    without = applied(module, plan, tmp_path, tune=False).path.read_bytes()
    tuner = importlib.import_module("mpq.recovery.tune")
    found = tuner.tune

    def spoiled(*arguments: Any, **choices: Any) -> Any:
        tuned = found(*arguments, **choices)
        return replace(tuned, vectors={name: torch.randn(vector.shape) for name, vector in tuned.vectors.items()})

    monkeypatch.setattr(tuner, "tune", spoiled)
    done = applied(module, plan, tmp_path)
    assert not done.tuning.taken
    assert done.tuning.reason.startswith("not tuned: relative_mse on 64 held-out samples ")
    assert ", no gain beyond noise; " in done.tuning.reason
    assert done.path.read_bytes() == without


def test_no_corrections_means_no_tuning_either(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), corrections=False)
    assert done.tuning.reason == "not tuned: as asked"


def test_without_data_nothing_is_tuned(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors")
    assert done.tuning.reason == "not tuned: no data to judge by"


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
    assert done.tuning.reason.startswith("not tuned: no gradient flows from relative_mse to the weights (")
    assert done.path.exists()


def test_a_metric_without_gradient_leaves_the_artifact_untuned(tmp_path: Path) -> None:
    module = mlp()
    table = mpq.analyze(module, many(), candidates=("int3",), quantizer="rtn", method="weight", metric="top1")
    done = applied(module, mpq.search(table, "16bits").plan, tmp_path)
    assert done.tuning.reason.startswith("not tuned: no gradient flows from top1 to the weights (")


def test_a_single_held_out_sample_is_too_few_to_judge_by(tmp_path: Path) -> None:
    module, few = mlp(), data(3)
    plan = mpq.search(mpq.analyze(module, few, candidates=("int2",), quantizer="rtn", method="weight"), "16bits").plan
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=few)
    assert done.tuning.reason == "not tuned: 2 samples to tune on and 1 to judge by are too few"


def test_time_that_runs_short_is_said(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), tune_minutes=1e-6)
    assert done.tuning.reason.startswith("not tuned: no gain on the samples kept aside, 0 of 16 passes over 168 samples in 0 s")
    assert done.tuning.reason.endswith(", all that 1e-06 minutes allow (--tune-minutes)")


def test_no_time_at_all_is_refused(tmp_path: Path) -> None:
    module, plan = planned_mlp()
    with pytest.raises(UsageError, match=r"^0 minutes is no time to tune: give a positive number, or do without tuning$"):
        apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), tune_minutes=0)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    seen = list[tuple[int, int, str]]()
    module, plan = planned_mlp()
    apply(module, plan, tmp_path / "a.mpq.safetensors", data=many(), on_tuning=lambda *call: seen.append(call))
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1] == (len(seen), len(seen), "pass 16 of 16")
