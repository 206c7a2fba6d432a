"""`mpq apply --shards` and `--to`."""

import json
from pathlib import Path

import pytest
import torch

import mpq
from mpq.data.dataset import Batch
from mpq.records.plan import write_plan
from tests.apply.making import exported, plan_of
from tests.cli.typed import done, refused
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.models.small import MODELS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shards_are_written_kept_and_loaded(folder: Path) -> None:
    pytest.importorskip("transformers")
    make(save_llama(folder / "model"), Batch((), {"input_ids": tokens()}), by_name({}, "int4-g8"), folder)
    first = done("apply plan.yaml --shards small")
    size = Path("small/model-00001-of-00001.mpq.safetensors").stat().st_size
    lines = first.out.splitlines()
    assert lines[0] == f"small/model.mpq.safetensors.index.json: 1 files, {size:,} bytes; every file matches its predicted size"
    assert [line.partition(":")[0] for line in lines[1:]] == ["not searched"]
    again = json.loads(done("apply plan.yaml --shards small --json").out)
    assert (again["kept"], again["file_bytes"]) == (1, size)
    expected = mpq.load("model.mpq.safetensors").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in mpq.load("small").state_dict().items())


def test_an_artifact_goes_to_another_program_at_once(folder: Path) -> None:
    model = exported("mlp", folder)
    write_plan(plan_of(model, "mlp"), Path("plan.yaml"))
    out = done("apply plan.yaml --to pt2").out
    assert f"model.packed.pt2: {Path('model.packed.pt2').stat().st_size:,} bytes, for pt2" in out
    inputs = MODELS["mlp"][1]
    with torch.no_grad():
        found = torch.export.load("model.packed.pt2").module()(inputs)
        assert torch.equal(found, mpq.load("model.mpq.safetensors")(inputs))


def test_a_folder_of_shards_is_no_single_file(folder: Path) -> None:
    write_plan(plan_of(exported("mlp", folder), "mlp"), Path("plan.yaml"))
    expected = "--shards writes a folder of files: leave out --output and --to (--to needs the model in memory)"
    assert refused("apply plan.yaml --shards small --output a", 2) == expected
