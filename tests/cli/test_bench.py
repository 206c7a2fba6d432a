"""`mpq bench` finds the reference as `mpq eval` does, and says what is faster."""

import json
from pathlib import Path

import pytest
import torch

from mpq.apply.run import apply
from tests.apply.making import exported, plan_of
from tests.cli.typed import done, refused
from tests.models.small import MODELS


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("mpq.runtime.speed._MOST", 10)  # rounds, in place of two seconds
    monkeypatch.chdir(tmp_path)
    model = exported("mlp", tmp_path)
    return apply(model, plan_of(model, "mlp"), Path("a.mpq.safetensors")).path.name


def test_it_prints_latency_load_and_memory(artifact: str) -> None:
    size = len(MODELS["mlp"][1])
    out = done(f"bench {artifact} --batch-sizes {size}").out
    assert out.splitlines()[1].split() == ["metric", "reference", "packed", "times", "better"]
    assert [line.partition("  ")[0] for line in out.splitlines()[2:]][:4] == [f"batch {size}", "load", "memory", "peak while loading"]


@pytest.mark.usefixtures("quick_bench")
def test_its_json_has_every_figure(artifact: str) -> None:
    size = len(MODELS["mlp"][1])
    ran = done(f"bench {artifact} --batch-sizes {size},{size + 1} --json")
    found = json.loads(ran.out)
    assert list(found["latency"]) == [f"batch {size}"]
    assert found["latency"][f"batch {size}"]["gain"] > 0
    assert found["file_bytes"] == Path(artifact).stat().st_size
    assert found["tokens_per_second"] is None
    assert found["threads"] == torch.get_num_threads()
    assert found["load"]["packed"]["seconds"] > 0
    assert f"batch sizes that the model does not accept: {size + 1}" in ran.err


@pytest.mark.usefixtures("quick_bench")
def test_another_dtype_has_a_column_of_its_own(artifact: str) -> None:
    size = len(MODELS["mlp"][1])
    out = done(f"bench {artifact} --batch-sizes {size} --dtype bf16").out
    assert out.splitlines()[1].split() == ["metric", "reference", "packed", "times", "better", "unpacked", "bf16"]
    found = json.loads(done(f"bench {artifact} --batch-sizes {size} --dtype bf16 --json").out)
    assert found["dtype"] == "bf16"
    assert found["latency"][f"batch {size}"]["unpacked"] > 0


def test_an_unknown_dtype_is_refused(artifact: str) -> None:
    assert refused(f"bench {artifact} --dtype int8", 2) == "--dtype int8 is not a dtype that a model computes in: write fp16, bf16, fp32"


def test_bad_batch_sizes_are_refused(artifact: str) -> None:
    expected = "--batch-sizes 1,x is not a list of batch sizes: write for example 1,8,32"
    assert refused(f"bench {artifact} --batch-sizes 1,x", 2) == expected
