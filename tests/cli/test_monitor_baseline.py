import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpq.records.baseline import read_baseline
from mpq.records.plan import read_plan, write_plan
from tests.cli.typed import done, refused
from tests.models.small import inputs, mlp


def test_the_baseline_is_written_next_to_the_artifact(folder: Path) -> None:
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    line = "monitor baseline model.mpq.safetensors --data calibration.pt --num-samples 40"
    found = json.loads(done(f"{line} --table reference.parquet --json").out)
    path = folder / "model.mpq.safetensors.monitor.json"
    assert (found["baseline"], found["bytes"]) == (path.name, path.stat().st_size)
    assert found["tensors"] == ["input", "output", "output entropy", "output margin"]
    assert found["bytes"] < 1000 * len(found["tensors"])
    baseline = read_baseline(Path("model.mpq.safetensors"))
    assert {sketch.samples for sketch in baseline.tensors.values()} == {40}
    table = pandas.read_parquet("reference.parquet")
    assert len(table) == 40
    assert table["output entropy mean"].between(0, 2.31).all()
    assert str(table["time"].dtype).startswith("datetime64[")  # like the table of a log
    written = path.read_bytes()
    path.unlink()
    done(line)
    assert path.read_bytes() == written
    done(f"{line} --batch-size 10 --table reference.parquet")
    assert len(pandas.read_parquet("reference.parquet")) == 4


def test_what_is_missing_is_one_line(folder: Path) -> None:
    line = "monitor baseline none.mpq.safetensors --data calibration.pt"
    assert refused(line, 3) == "none.mpq.safetensors does not exist: run `mpq apply` first, or name the artifact"
    assert refused("monitor baseline model.mpq.safetensors --data none.pt", 3).startswith("none.pt does not exist: give a file of")
    assert "calibration.pt" in refused("monitor baseline model.mpq.safetensors --data calibration.pt --table calibration.pt", 3)


def test_the_layers_are_those_of_the_artifacts_sketches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net.py").write_text("from tests.models.small import mlp as build\n")
    torch.save(mlp().state_dict(), "model.pt")
    torch.save(inputs(40, 8), "data.pt")
    done("analyze model.pt --builder net:build --calib data.pt --candidates 4 --quantizer rtn --method weight -o a.sensitivity.jsonl")
    done("search --uniform int4 --trials 0 --sketches -o plan.yaml")
    plan = read_plan("plan.yaml")
    write_plan(replace(plan, sketches=("3",)), "plan.yaml")
    done("apply plan.yaml --builder net:build --no-recovery -o a.mpq.safetensors")
    found = json.loads(done("monitor baseline a.mpq.safetensors --data data.pt --builder net:build --json").out)
    assert found["tensors"] == ["3.input", "input", "output", "output entropy", "output margin"]
