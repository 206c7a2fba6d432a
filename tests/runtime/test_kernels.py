"""What `mpq show --kernels` says is what runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.data.dataset import Batch
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import from_module
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import plan_for, write_plan
from mpq.runtime.kernels import kernels_of
from mpq.tensors.kernels import bags, choose, int4pack
from mpq.tensors.packed import PackedTensor
from tests.apply.making import in_memory, plan_of
from tests.cli.typed import done, refused
from tests.models.small import inputs, mlp

needs_bags = pytest.mark.skipif(not bags.available(), reason="this build of torch has no FBGEMM")


def artifact(folder: Path, kind: str, *schemes: str) -> Path:
    model = in_memory(kind)
    return mpq.apply(model, plan_of(model, kind, schemes), folder / "a.mpq.safetensors").path


@needs_bags
def test_each_layer_has_a_kernel_by_rows_and_a_reason(tmp_path: Path) -> None:
    rows = kernels_of(read_artifact_header(artifact(tmp_path, "mlp", "int4-g8", "nf4", "fp32")))
    assert [row["kernels"] for row in rows] == [
        {"1": "bags4", "8": "bags4" if choose.few(4, torch.float32) >= 8 else "blocks", "128": "blocks", "1024": "blocks"},
        dict.fromkeys(["1", "8", "128", "1024"], "rows"),
        dict.fromkeys(["1", "8", "128", "1024"], "plain"),
    ]
    assert all(set(row["reasons"]) == set(row["kernels"].values()) for row in rows)


def noting(called: list[str], name: str) -> Callable[..., Any]:
    real = getattr(bags, name)

    def noted(*given: Any) -> Any:
        called.append(name)
        return real(*given)

    return noted


@needs_bags
def test_the_kernel_that_is_named_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, called = artifact(tmp_path, "mlp", "int4-g8"), list[str]()
    module = mpq.load(path, mlp(1), packed=True)
    for name in ("few_rows", "many_rows"):
        monkeypatch.setattr(bags, name, noting(called, name))
    with torch.no_grad():
        module(inputs(1, 8))
        module(inputs(128, 8))
    row = kernels_of(read_artifact_header(path))[0]["kernels"]
    assert (row["1"], row["128"]) == ("bags4", "blocks")
    assert called == ["few_rows"] * 3 + ["many_rows"] * 3


def test_the_command_prints_the_table_and_the_reasons(tmp_path: Path) -> None:
    out = done(f"show {artifact(tmp_path, 'mlp', 'nf4')} --kernels").out
    assert out.splitlines()[0].split() == ["layer", "scheme", "1", "row", "8", "rows", "128", "rows", "1024", "rows"]
    assert "rows: no packed kernel for this format here: dequantizes a block of rows at a time" in out


def test_the_kernels_of_another_dtype(tmp_path: Path) -> None:
    path = artifact(tmp_path, "mlp", "fp32")
    assert kernels_of(read_artifact_header(path), torch.bfloat16)[0]["dtype"] == "bfloat16"
    assert "for inputs in bfloat16 on this CPU, which has " in done(f"show {path} --kernels --dtype bf16").out
    assert "for inputs in float32 on this CPU, which has " in done(f"show {path} --kernels").out
    assert refused(f"show {path} --dtype bf16", 2) == "--dtype only affects --kernels: add --kernels, or leave --dtype out"


@pytest.mark.skipif(not int4pack.available(), reason="this CPU has no AVX512")
def test_faster_kernels_of_bfloat16_are_told(tmp_path: Path) -> None:
    model = from_module(nn.Linear(32, 16).eval())
    layers = discover(model.module, [Batch((torch.randn(2, 32),))]).layers
    source = source_of(model, "model")
    rest = inventory(model, layers, source=source, quantizer="rtn")
    plan = plan_for(layers, {layers[0].name: parse_scheme("int4-g32")}, model=source, quantizer="rtn", rest=rest)
    path = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors").path
    ran = done(f"show {path} --kernels")
    assert f"faster kernels here compute in bfloat16: mpq show {path} --kernels --dtype bf16" in ran.err
    assert "int4pack: torch's own int4 matmul" in done(f"show {path} --kernels --dtype bf16").out
    packed = mpq.load(path, nn.Linear(32, 16), packed=True, dtype=torch.bfloat16)
    assert isinstance(packed.weight, PackedTensor)
    assert packed.weight.packed.layout == "int4pack"


def test_a_plan_has_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(plan_of(in_memory("mlp"), "mlp"), Path("plan.yaml"))
    expected = "plan.yaml is not an artifact, which --kernels needs: run `mpq apply`, then name what it wrote"
    assert refused("show plan.yaml --kernels", 2) == expected
