from pathlib import Path

import torch
from torch import nn

import mpq
from mpq.apply.run import Applied, apply
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import Plan
from tests.models.small import data, inputs, mlp


def planned(module: nn.Module, scheme: str = "int3") -> Plan:
    table = mpq.analyze(module, data(256), candidates=(scheme,), quantizer="descent", method="weight", metric="relative_mse")
    return mpq.search(table, "16bits").plan


def applied(module: nn.Module, plan: Plan, folder: Path, *, sequential: bool, name: str = "a") -> Applied:
    return apply(module, plan, folder / f"{name}.mpq.safetensors", data=data(256), sequential=sequential, tune=False)


def test_layers_quantized_one_after_another_are_better_at_the_same_size(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    errors = []
    for sequential in (False, True):
        done = applied(module, plan, tmp_path, sequential=sequential)
        assert done.requantization.taken == sequential == read_artifact_header(done.path).sequential
        assert done.file_bytes == plan.size.file_bytes
        found = mpq.evaluate(module, mpq.load(done.path, mlp(1)), [inputs(64, 8, seed=9)])["relative_mse"]
        errors.append(found.quantized)
    assert errors[1] < 0.9 * errors[0]
    decided = done.requantization
    assert decided.before is not None
    assert decided.after is not None
    assert decided.after < decided.before
    figures = f"relative_mse on 64 held-out samples {decided.before:.4g} without, {decided.after:.4g} with; "
    assert decided.reason.startswith(f"2 layers quantized for what comes before them: {figures}")


def test_the_same_plan_and_data_give_the_same_file(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    one, other = (applied(module, plan, tmp_path, sequential=True, name=name).path for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_what_does_not_help_is_left_and_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Linear(8, 4)).eval()
    done = applied(alone, planned(alone), tmp_path, sequential=True)
    assert not done.requantization.taken
    assert not read_artifact_header(done.path).sequential
    assert done.requantization.reason.startswith("not sequential: ")
    asked = applied(alone, planned(alone), tmp_path, sequential=False)
    assert asked.requantization.reason == "not sequential: as asked"
    assert asked.path.read_bytes() == done.path.read_bytes()


def test_what_takes_too_long_is_given_up_and_said(tmp_path: Path) -> None:
    module = mlp()
    plan = planned(module)
    plain = applied(module, plan, tmp_path, sequential=False, name="b").path
    done = apply(module, plan, tmp_path / "a.mpq.safetensors", data=data(256), tune=False, tune_minutes=1e-6)
    assert not done.requantization.taken
    assert done.requantization.reason.startswith("not sequential: 1 of 3 sets of layers took ")
    assert done.requantization.reason.endswith(" minutes, and 1e-06 are allowed for all (--tune-minutes)")
    assert done.path.read_bytes() == plain.read_bytes()


def test_outputs_decide_where_the_metric_sees_no_difference(tmp_path: Path) -> None:
    module = mlp()
    sure = nn.Sequential(module, nn.Linear(4, 4, bias=False)).eval()
    with torch.no_grad():
        sure.get_parameter("1.weight").copy_(400 * torch.eye(4))
    table = mpq.analyze(sure, data(256), candidates=("int3",), quantizer="descent", method="weight", metric="kl_divergence", ignore=("1",))
    done = applied(sure, mpq.search(table, "16bits").plan, tmp_path, sequential=True)
    assert done.requantization.taken
    assert ": relative_mse on 64 held-out samples " in done.requantization.reason
    assert ", no difference beyond noise; " in done.requantization.reason
