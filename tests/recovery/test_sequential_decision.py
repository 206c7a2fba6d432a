import re
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mpq
from mpq.apply.run import Applied, apply
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import Plan
from tests.models.small import data, inputs, mlp


def planned(module: nn.Module, scheme: str = "int3") -> Plan:
    table = mpq.analyze(module, data(256), candidates=(scheme,), quantizer="descent", method="weight", metric="relative_mse")
    return mpq.search(table, "16bits").plan


def applied(module: nn.Module, plan: Plan, folder: Path, *, sequential: bool, name: str = "a") -> Applied:
    return apply(module, plan, folder / f"{name}.mpq.safetensors", data=data(256), sequential=sequential, reconstruct=False, tune=False)


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two artifacts differ in their headers at most."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_layers_quantized_one_after_another_are_better_at_the_same_size(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    errors = []
    for sequential in (False, True):
        done = applied(module, plan, tmp_path, sequential=sequential)
        assert done.decision("sequential").kept == sequential == ("sequential" in read_artifact_header(done.path).recovery)
        assert done.file_bytes == plan.size.file_bytes
        found = mpq.evaluate(module, mpq.load(done.path, mlp(1)), [inputs(64, 8, seed=9)])["relative_mse"]
        errors.append(found.quantized)
    assert errors[1] < 0.9 * errors[0]
    decided = done.decision("sequential")
    assert decided.before is not None
    assert decided.after is not None
    assert decided.after < decided.before
    assert decided.reason == f"kept for 2 layers: relative MSE {decided.before:.4g} -> {decided.after:.4g} on 64 held-out samples"
    assert decided.line == f"Sequential re-quantization {decided.reason} ({decided.seconds:.0f} s)"
    assert decided.details == {"layers": 2, "samples": 192, "left": {}}


def test_the_same_plan_and_data_give_the_same_file(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    one, other = (applied(module, plan, tmp_path, sequential=True, name=name).path for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_what_cannot_help_is_left_and_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Linear(8, 4)).eval()
    done = applied(alone, planned(alone), tmp_path, sequential=True)
    assert not done.decision("sequential").kept
    assert read_artifact_header(done.path).recovery == ()
    expected = "skipped: no layer follows another through operations that mpq understands"
    assert done.decision("sequential").reason == expected
    asked = applied(alone, planned(alone), tmp_path, sequential=False)
    assert asked.decision("sequential").line == "Sequential re-quantization skipped: switched off"
    assert asked.path.read_bytes() == done.path.read_bytes()


def test_the_emergency_stop_is_printed_and_recorded(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    plain = applied(module, plan, tmp_path, sequential=False, name="b").path
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=data(256), reconstruct=False, tune=False, tune_minutes=1e-9)
    decided, header = done.decision("sequential"), read_artifact_header(done.path)
    assert (decided.kept, decided.stopped) == (False, True)
    assert decided.reason == "skipped: stopped by the limit of 1e-09 minutes (--tune-minutes), with 1 sets of layers done"
    assert (header.recovery, header.stopped) == ((), ("sequential",))
    assert done.file_bytes == plan.size.file_bytes
    assert same_tensors(done.path, plain)


def test_too_little_work_is_said_before_anything_is_done(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=data(256), reconstruct=False, tune=False, tune_work=2e-8)
    expected = r"skipped: rows of 16 weights would take 9\.8e\+04 operations, and 2\.5e\+03 are allowed for one set of layers .*"
    assert re.fullmatch(expected, done.decision("sequential").reason)
    assert done.decision("sequential").details["left"].keys() == {"3", "5"}
    assert read_artifact_header(done.path).stopped == ()


class Wide(nn.Module):
    """A layer with long rows among small ones."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.first, self.wide, self.last = nn.Linear(8, 32), nn.Linear(columns, 16), nn.Linear(16, 4)
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        found: Tensor = self.last(torch.relu(self.wide(hidden.repeat(1, self.columns // 32))))
        return found


@pytest.mark.parametrize("columns", [8192, 65536])
def test_rows_too_wide_are_left_with_the_reason_and_the_other_layers_are_done(tmp_path: Path, columns: int) -> None:
    torch.manual_seed(0)
    module = Wide(columns).eval()
    table = mpq.analyze(module, data(256), candidates=("int3",), quantizer="rtn", method="weight", metric="relative_mse")
    began = time.monotonic()
    done = applied(module, mpq.search(table, "16bits").plan, tmp_path, sequential=True)
    assert time.monotonic() - began < 30  # one set of 8,192 columns alone would take minutes, one of 65,536 hundreds of gigabytes
    decided = done.decision("sequential")
    reason = f"rows of {columns:,} weights would take {4 * (4 * columns) ** 2 / 1e9:.2g} GB of memory, and 2.1 GB are allowed"
    assert decided.details["left"] == {"wide": reason}
    assert decided.details["layers"] == 1
    assert f"; 1 layer left unchanged: {reason}" in decided.reason


def test_with_less_work_fewer_samples_are_used_and_that_is_said(tmp_path: Path) -> None:
    module, samples = mlp(), data(1024)
    table = mpq.analyze(module, samples, candidates=("int3",), quantizer="descent", method="weight", metric="relative_mse")
    plan = mpq.search(table, "16bits").plan
    found = [
        apply(module, plan, tmp_path / name, data=samples, reconstruct=False, tune=False, tune_work=1e-6).decision("sequential")
        for name in "ab"
    ]
    count = found[0].details["samples"]
    assert 8 <= count < 768
    assert found[1].details["samples"] == count
    assert f", on {count} of 768 samples" in found[0].reason


def test_outputs_decide_where_the_metric_sees_no_difference(tmp_path: Path) -> None:
    module = mlp()
    sure = nn.Sequential(module, nn.Linear(4, 4, bias=False)).eval()
    with torch.no_grad():
        sure.get_parameter("1.weight").copy_(400 * torch.eye(4))
    table = mpq.analyze(sure, data(256), candidates=("int3",), quantizer="descent", method="weight", metric="kl_divergence", ignore=("1",))
    done = applied(sure, mpq.search(table, "16bits").plan, tmp_path, sequential=True)
    decided = done.decision("sequential")
    assert decided.kept
    assert decided.details["decided_by"] == "relative_mse"
    assert decided.details["outputs_after"] < decided.details["outputs_before"]
    assert " on 64 held-out samples, no significant difference; decided by relative MSE " in decided.reason
