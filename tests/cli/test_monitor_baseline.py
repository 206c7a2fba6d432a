import json
from pathlib import Path

import pytest

from mpq.records.baseline import read_baseline
from tests.cli.typed import done, refused


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
