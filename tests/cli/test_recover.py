import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import mpq
from mpq.cli.find_inputs import read_data
from mpq.cli.recover import _with_text
from mpq.config import DataSettings
from mpq.data.dataset import Data
from mpq.models.inputs.own_text import token_windows, with_own_text
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from tests.cli.typed import done, typed
from tests.models.inputs.test_own_text import windows, writer

LINE = "recover plan.yaml --data more.pt --epochs 2 --level codes --rate 1 --no-blocks --batch-size 64"


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
    assert plan["evidence"]["recovery"]["after"] == ran["evidence"]["after"] < ran["decisions"][0]["before"]
    images, _ = torch.load(trained / "test.pt", weights_only=True)
    assert mpq.load(trained / "model.recovered.mpq.safetensors")(images[:4]).shape == (4, 10)
    assert "training" in json.loads(done("show model.recovered.mpq.safetensors --json").out)["recovery"]
    done("report plan.yaml")
    assert 'id="training"' in (trained / "plan.report.html").read_text()
    after = ran["evidence"]["after"]
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
        (
            "recover plan.yaml",
            2,
            "nothing to train on: give samples with --data FILE; they need no labels. A language model can write them",
        ),
        ("recover plan.yaml --own-text -1", 2, "-1 is not a number of windows: give 0 (none) or more"),
        ("recover plan.yaml --own-text 4", 2, "--own-text 4 needs a language model that decodes with a cache"),
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


def test_labels_of_the_samples_are_half_of_the_loss_and_missing_ones_are_refused(trained: Path) -> None:
    images, labels = torch.load(trained / "test.pt", weights_only=True)
    refused = typed(f"{LINE} --labels")
    assert "more.pt: no labels that fit an output of [64, 10]: give pairs of inputs and labels" in refused.err
    assert refused.code == 3
    torch.save((images[:96].clone(), labels[:96].clone()), trained / "pairs.pt")
    done(f"{LINE.replace('more.pt', 'pairs.pt')} --labels --json")
    lines = [json.loads(line) for line in (trained / "model.recovered.recover.jsonl").read_text().splitlines()]
    done(LINE.replace("more.pt", "pairs.pt") + " --json")
    others = [json.loads(line) for line in (trained / "model.recovered.recover.jsonl").read_text().splitlines()]
    assert lines[0]["aside"] != others[0]["aside"]


def test_a_journal_is_the_same_in_every_run(trained: Path) -> None:
    done(LINE.replace(" --no-blocks", ""))
    first = json.loads((trained / "model.recovered.recover.jsonl").read_text().splitlines()[0])
    assert first["event"].startswith("Block reconstruction ")
    assert not re.search(r"\(\d+ s\)", first["event"])


def test_text_of_the_model_is_added_and_is_not_that_of_apply() -> None:
    loaded, given = from_module(writer()), windows(5)
    found, other = _with_text(loaded, given, 40, seed=0), with_own_text(loaded.module, given, 40, seed=0)
    ids, others = token_windows(found), None if other is None else token_windows(other)
    assert ids is not None
    assert others is not None
    assert torch.equal(ids[:5], others[:5])
    assert ids.shape == (45, 6)
    assert not torch.equal(ids[5:], others[5:])
    assert _with_text(loaded, given, 0, seed=0) is given
