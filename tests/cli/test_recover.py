import json
from pathlib import Path

import pytest
import torch
import yaml

import mpq
from mpq.cli.find_inputs import read_data
from mpq.config import DataSettings
from mpq.data.dataset import Data
from mpq.models.sources.loaded import LoadedModel
from tests.cli.typed import done, typed

LINE = "recover plan.yaml --data more.pt --epochs 2 --level codes --rate 1"


@pytest.fixture
def trained(folder: Path) -> Path:
    images, _ = torch.load(folder / "test.pt", weights_only=True)
    torch.save(images[:96].clone(), folder / "more.pt")
    return folder


def test_the_recovered_artifact_has_as_many_bytes_and_the_plan_says_what_came_back(trained: Path) -> None:
    ran = json.loads(done(f"{LINE} --json").out)
    plan = yaml.safe_load((trained / "plan.yaml").read_text())
    lines = [json.loads(line) for line in (trained / "model.recovered.recover.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == lines[-1]["of"]
    if ran["output"] is None:  # held-out samples did not agree, and nothing may be left
        assert not (trained / "model.recovered.mpq.safetensors").exists()
        assert "recovery" not in plan["evidence"]
        return
    assert (trained / "model.recovered.mpq.safetensors").stat().st_size == ran["file_bytes"] == plan["size"]["file_bytes"]
    assert plan["evidence"]["recovery"]["after"] == ran["decision"]["after"] < ran["decision"]["before"]
    images, _ = torch.load(trained / "test.pt", weights_only=True)
    assert mpq.load(trained / "model.recovered.mpq.safetensors")(images[:4]).shape == (4, 10)
    assert "training" in json.loads(done("show model.recovered.mpq.safetensors --json").out)["recovery"]
    done("report plan.yaml")
    assert 'id="training"' in (trained / "plan.report.html").read_text()
    after = ran["decision"]["after"]
    assert typed(f"check plan.yaml --max-error {after * 1.01}").code == 0
    assert typed(f"check plan.yaml --max-error {after * 0.99}").code == 1


def test_the_samples_are_read_as_those_of_the_plan_were(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (trained / "plan.yaml").read_text()
    (trained / "plan.yaml").write_text(text.replace("\ndata:\n", "\ndata:\n  seed_each_forward: true\n", 1))
    seen: list[DataSettings] = []

    def reading(source: str, model: LoadedModel, settings: DataSettings) -> Data:
        seen.append(settings)
        return read_data(source, model, settings)

    monkeypatch.setattr("mpq.cli.recover.read_data", reading)
    typed(f"{LINE} --num-samples 8")
    assert [(settings.seed_each_forward, settings.num_samples) for settings in seen] == [(True, 8)]


def test_held_out_samples_among_those_to_train_on_are_refused(trained: Path) -> None:
    ran = typed("recover plan.yaml --data calibration.pt")
    assert ran.code == 3
    assert "held-out samples of the plan are among the training samples, so they cannot decide: give other data" in ran.err
    assert not list(trained.glob("*.recover*"))


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("recover plan.yaml", 2, "nothing to train on: give samples with --data FILE"),
        ("recover plan.yaml --data more.pt --epochs 2 --minutes 1", 2, "--epochs and --minutes both say how long to train"),
        ("recover plan.yaml --data more.pt --epochs 0", 2, "0 epochs is not a training length"),
        ("recover plan.yaml --data more.pt --level all", 2, "'all' is not a level: give one of scales, codes, weights"),
        ("recover none.yaml --data more.pt", 3, "none.yaml does not exist: run `mpq search` first"),
        (
            "recover plan.yaml --data more.pt --artifact none.mpq.safetensors",
            3,
            "none.mpq.safetensors does not exist: run `mpq apply plan.yaml`",
        ),
        ("recover plan.yaml --data more.pt -o model.mpq.safetensors", 3, "it is an input of this command"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(trained: Path, line: str, code: int, message: str) -> None:
    before = {path.name for path in trained.iterdir()}
    ran = typed(line)
    assert message in ran.err
    assert ran.code == code
    assert {path.name for path in trained.iterdir()} == before
