import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

import mpq
from mpq.apply.run import Applied, apply
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import MismatchError
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import Plan
from mpq.recovery.registry import STEPS
from tests.recovery.test_bias_correction import convolutional, images


def samples() -> Data:
    return data_from_batches(list(torch.split(images(96), 16)))


def planned(module: nn.Module, *, quantizer: str = "rtn", scheme: str = "int2") -> Plan:
    table = mpq.analyze(module, samples(), candidates=(scheme,), quantizer=quantizer, method="weight")
    return mpq.search(table, "16bits").plan


def applied(module: nn.Module, plan: Plan, folder: Path, *, recovery: bool = True, data: Data | None = None) -> Applied:
    return apply(module, plan, folder / "a.mpq.safetensors", data=data or samples(), recovery=recovery)


def error(module: nn.Module, artifact: Path) -> float:
    """Of the artifact on samples that nothing has seen."""
    quantized = mpq.load(artifact, convolutional())
    return mpq.evaluate(module, quantized, [images(64, seed=7)])["relative_mse"].quantized


def test_coarse_weights_are_corrected_and_the_artifact_is_better_at_the_same_size(tmp_path: Path) -> None:
    module = convolutional()
    plan = planned(module)
    without = applied(module, plan, tmp_path, recovery=False)
    before = error(module, without.path)
    assert read_artifact_header(without.path).recovery == ()
    done = applied(module, plan, tmp_path)
    decided = done.decision("bias_correction")
    assert decided.kept
    assert decided.before is not None
    assert decided.after is not None
    assert decided.after < decided.before
    figures = f"KL {decided.before:.4g} -> {decided.after:.4g} on 24 held-out samples"
    assert decided.line == f"Bias correction kept for 3 bias or batch-norm vectors: {figures} ({decided.seconds:.0f} s)"
    assert done.file_bytes == without.file_bytes == plan.size.file_bytes
    assert "bias_correction" in read_artifact_header(done.path).recovery
    assert error(module, done.path) < before


def test_the_same_plan_and_data_give_the_same_file(tmp_path: Path) -> None:
    module = convolutional()
    plan = planned(module)
    first = applied(module, plan, tmp_path).path.read_bytes()
    assert applied(module, plan, tmp_path).path.read_bytes() == first


def test_corrections_that_do_not_help_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = convolutional()
    plan = planned(module)
    nothing = {"4.bias": module.state_dict()["4.bias"].clone()}
    monkeypatch.setattr(importlib.import_module("mpq.recovery.bias_correction"), "corrections", lambda *_: nothing)
    done = applied(module, plan, tmp_path)
    decided = done.decision("bias_correction")
    assert not decided.kept
    assert decided.reason.startswith("not kept: KL ")
    assert decided.reason.endswith(" on 24 held-out samples, no significant gain")
    assert "bias_correction" not in read_artifact_header(done.path).recovery


def test_without_data_nothing_is_corrected(tmp_path: Path) -> None:
    module = convolutional()
    done = apply(module, planned(module), tmp_path / "a.mpq.safetensors")
    assert [decision.reason for decision in done.decisions] == len(STEPS) * ["skipped: no data to decide with"]


def test_other_data_than_the_plans_is_refused(tmp_path: Path) -> None:
    module = convolutional()
    with pytest.raises(MismatchError, match="other calibration data"):
        applied(module, planned(module), tmp_path, data=data_from_batches([torch.zeros(8, 3, 6, 6)]))
