"""Sketches of the calibration data in an artifact, in everything that writes one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mpq
from mpq.apply.train import train_artifact
from mpq.calibration.baseline import sketched
from mpq.errors import ApplyError, FormatError
from mpq.models.sources.load import from_module
from mpq.records.artifact_files import read_header
from mpq.records.baseline import Baseline, baseline_path, read_baseline, write_baseline
from mpq.records.plan import Plan
from mpq.records.sketch import Sketch
from mpq.recovery.training.settings import TrainSettings
from mpq.search.run import search
from tests.models.small import data, mlp

LAYERS = ("0", "3", "5")
NAMES = ["input", "output", "output entropy", "output margin", "0.input", "3.input", "5.input"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    table = mpq.analyze(mlp(), data(), candidates=("4",), quantizer="rtn", metric="relative_mse", method="measure")
    return search(table, "16bits", trials=0, sketches=True).plan


def applied(plan: Plan, path: Path, **options: bool | None) -> Path:
    return mpq.apply(mlp(), plan, path, data=data(), recovery=False, **options).path  # type: ignore[arg-type]


def test_the_artifact_has_the_predicted_bytes_and_the_baseline_of_the_calibration_data(plan: Plan, tmp_path: Path) -> None:
    path = applied(plan, tmp_path / "a.mpq.safetensors")
    assert plan.sketches == LAYERS
    assert path.stat().st_size == plan.size.file_bytes
    loaded = mpq.load(path, mlp(1))
    single = data().split_as(plan.data).calibration.rebatch(1)
    wanted = sketched(loaded, single.batches, LAYERS)
    found = read_baseline(path)
    assert found.tensors == wanted.tensors
    assert list(found.tensors) == NAMES
    assert found.noise == pytest.approx(wanted.noise)


def test_the_same_plan_gives_the_same_file(plan: Plan, tmp_path: Path) -> None:
    first, second = (applied(plan, tmp_path / name).read_bytes() for name in "ab")
    assert first == second
    bare = replace(plan, sketches=None)
    assert applied(bare, tmp_path / "c", sketches=True).read_bytes() == first
    assert applied(plan, tmp_path / "d", sketches=False).read_bytes() == applied(bare, tmp_path / "e").read_bytes()
    assert len(first) > (tmp_path / "e").stat().st_size == bare.size.file_bytes


def test_a_monitor_needs_no_other_file(plan: Plan, tmp_path: Path) -> None:
    path = applied(plan, tmp_path / "a.mpq.safetensors")
    loaded = mpq.load(path, mlp(1))
    with mpq.monitor(loaded, path, sample=1.0) as watching, torch.no_grad():
        for batch in data(64, seed=3, batch_size=1).batches:
            loaded(*batch.args)
        assert watching.alarms() == []
        watching.restart()
        for batch in data(64, seed=3, batch_size=1).batches:
            loaded(10 * batch.args[0])
        assert {alarm.name for alarm in watching.alarms()} >= {"input", "0.input"}


def test_a_file_next_to_the_artifact_replaces_its_sketches(plan: Plan, tmp_path: Path) -> None:
    path = applied(plan, tmp_path / "a.mpq.safetensors")
    other = Baseline({"input": Sketch(samples=3)}, {"input": 0.5})
    write_baseline(other, path)
    assert read_baseline(path) == other
    baseline_path(path).unlink()
    assert list(read_baseline(path).tensors) == NAMES
    bare = applied(plan, tmp_path / "b.mpq.safetensors", sketches=False)
    with pytest.raises(FormatError, match=r"b\.mpq\.safetensors has no sketches, and .*monitor\.json does not exist: write it with"):
        read_baseline(bare)


def test_sketches_need_the_data_of_the_plan(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ApplyError, match="sketches need the calibration data that the plan was made with: pass it as data, or leave"):
        mpq.apply(mlp(), plan, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_training_renews_the_sketches_of_its_artifact(tmp_path: Path) -> None:
    whole, model = data(96), from_module(mlp())
    table = mpq.analyze(mlp(), whole, candidates=("3",), quantizer="rtn", metric="relative_mse", method="measure")
    plan = search(table, "16bits", trials=0, sketches=True).plan
    path, trained = mpq.apply(mlp(), plan, tmp_path / "a", data=whole, recovery=False).path, tmp_path / "b"
    settings = TrainSettings("codes", epochs=4, rate=3.0, blocks=False)
    bare = replace(plan, sketches=None)  # the artifact decides
    made = train_artifact(model, bare, path, trained, data=data(256, seed=5), plan_data=whole, settings=settings)
    assert made.path == trained
    assert trained.stat().st_size == made.file_bytes == path.stat().st_size
    before, after = read_baseline(path).tensors, read_baseline(trained).tensors
    assert before["input"] == after["input"]
    assert before["output"] != after["output"]


def test_an_artifact_written_without_data_says_that_it_has_no_sketches(plan: Plan, tmp_path: Path) -> None:
    module = mpq.prepare(mlp(), plan)
    done = mpq.convert(module, tmp_path / "a")
    left = plan.size.file_bytes - done.file_bytes
    assert done.notes == [
        f"no sketches, which need data: {left:,} bytes fewer than the plan predicts; `mpq monitor baseline` writes them to a file"
    ]
    assert read_header(done.path).sketches is None


def test_other_programs_see_ordinary_tensors(plan: Plan, tmp_path: Path) -> None:
    path = applied(plan, tmp_path / "a.mpq.safetensors")
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert set(header) - {"__metadata__"} == {
        *(f"{name}.{part}" for name in LAYERS for part in ("codes", "scales")),
        *(name for name in mlp().state_dict() if name.removesuffix(".weight") not in LAYERS),
    }
