"""What `mpq show --kernels` says is what runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mpq
from mpq.apply.kernels import kernels_of
from mpq.records.artifact import read_artifact_header
from mpq.records.plan import write_plan
from mpq.tensors.kernels import bags
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
        {"1": "bags4", "8": "blocks", "128": "blocks", "1024": "blocks"},
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
    assert "rows: no packed kernel for this format here: dequantizes some rows at a time" in out


def test_a_plan_has_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(plan_of(in_memory("mlp"), "mlp"), Path("plan.yaml"))
    expected = "plan.yaml is a plan, and kernels multiply the layers of an artifact: run `mpq apply`, then name what it wrote"
    assert refused("show plan.yaml --kernels", 2) == expected
