"""The second half of `mpq recover --reallocate`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpq.cli.reallocated import Files
from mpq.records.plan import read_plan
from tests.cli.typed import done, typed

LINE = "recover plan.yaml --data more.pt --epochs 1 --level codes --rate 1 --no-blocks --reallocate"


@pytest.fixture
def trained(folder: Path) -> Path:
    images, _ = torch.load(folder / "test.pt", weights_only=True)
    torch.save(images[:96].clone(), folder / "more.pt")
    return folder


def test_files_are_named_after_the_plan_and_the_model() -> None:
    found = Files.beside(Path("a/plan.yaml"), Path("a/model.recovered.mpq.safetensors"))
    assert found == Files(Path("a/plan.reallocated.yaml"), Path("a/model.reallocated.mpq.safetensors"))


def test_what_a_reallocation_came_to_is_told_and_written_if_it_is_kept(trained: Path) -> None:
    before = {path.name for path in trained.iterdir()}
    ran = json.loads(done(f"{LINE} --json").out)["reallocation"]
    left = {path.name for path in trained.iterdir()} - before - {"model.recovered.mpq.safetensors", "model.recovered.recover.jsonl"}
    assert -1 <= ran["correlation"] <= 1
    if ran["decision"]["kept"]:
        assert left == {"plan.reallocated.yaml", "model.reallocated.mpq.safetensors", "model.reallocated.recover.jsonl"}
        assert typed(f"check plan.reallocated.yaml --max-error {ran['decision']['after'] * 1.01}").code == 0
        assert (trained / "model.reallocated.mpq.safetensors").stat().st_size == ran["file_bytes"]
    else:
        assert left <= {"model.reallocated.recover.jsonl"}


def test_plans_with_integer_activations_are_refused_before_training(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = replace(read_plan(trained / "plan.yaml"), activations={"x": object()})  # type: ignore[dict-item]
    monkeypatch.setattr("mpq.records.plan.read_plan", lambda _: rounded)
    assert typed(LINE).err.strip() == "mpq: --reallocate does not cover plans with integer activations: leave it out"
    assert not list(trained.glob("*.recover*"))


def test_a_plan_without_its_analysis_is_refused_before_training(trained: Path) -> None:
    for path in trained.glob("*.sensitivity.jsonl"):
        path.unlink()
    ran = typed(LINE)
    assert "--reallocate needs the candidates of the analysis, and the analysis of plan.yaml is not in its folder" in ran.err
    assert ran.code == 3
    assert not list(trained.glob("*.recover*"))
