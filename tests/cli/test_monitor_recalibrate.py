import json
from pathlib import Path

import pytest
import torch

import mpq
from mpq.data.batch import Batch
from mpq.monitor.baseline import baseline_of
from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from tests.cli.typed import done, refused


@pytest.fixture
def drifted(folder: Path) -> Path:
    """The folder of the digits with a log whose calls had half of the contrast."""
    module = mpq.load("model.mpq.safetensors")
    images = torch.load("calibration.pt")[:60]
    baseline = baseline_of(module, [Batch((image,)) for image in images.split(1)])
    with torch.no_grad(), monitor(module, baseline, sample=1.0, keep=12) as watching:
        for image in images.split(1):
            module(0.5 * image)
        append(watching, "log.jsonl")
    return folder


def test_drifted_samples_lead_to_a_new_plan_within_the_old_budget(drifted: Path) -> None:
    printed = json.loads(done("monitor recalibrate log.jsonl plan.yaml --trials 0 --json").out)
    assert (printed["plan"], printed["samples"]) == ("plan.recalibrated.yaml", 12)
    joined = torch.load(printed["data"], weights_only=True)
    assert sum(len(call[0]) if isinstance(call, tuple) else len(call) for call in joined) == 24 + 12
    old, new = (mpq.read_plan(Path(name)) for name in ("plan.yaml", "plan.recalibrated.yaml"))
    assert new.budget == old.budget
    assert new.size.effective_bits <= 4.5
    assert new.analysis["path"] == "model.recalibrated.sensitivity.jsonl"
    shown = done("monitor recalibrate log.jsonl plan.yaml --trials 0").out
    assert "plan.recalibrated.yaml" in shown
    assert "bits per weight over the layers" in shown


def test_a_log_without_samples_is_one_line(drifted: Path) -> None:
    Path("log.samples.pt").unlink()
    assert "cannot read log.samples.pt" in refused("monitor recalibrate log.jsonl", 3)


def test_the_new_data_is_read_like_that_of_the_analysis(drifted: Path) -> None:
    Path("model.sensitivity.jsonl").unlink()
    analyze = "analyze model.pt2 --calib calibration.pt --num-samples 24 --candidates 4,8 --method weight"
    done(f"{analyze} --batch-axis 0 --seed-each-forward --split position")
    done("search --budget 6bits --trials 0")
    done("monitor recalibrate log.jsonl plan.yaml --trials 0")
    facts = mpq.read_sensitivity(Path("model.recalibrated.sensitivity.jsonl")).header.data
    assert (facts["batch_axis"], facts["seed_each_forward"], facts["split"], facts["num_samples"]) == ("0", True, "position", None)


@pytest.mark.parametrize("name", ["log.jsonl", "log.samples.pt", "plan.yaml"])
def test_the_new_plan_replaces_nothing_that_is_given(drifted: Path, name: str) -> None:
    reason = f"cannot write {name}: it is an input of this command ({name}); choose another place with --output"
    assert refused(f"monitor recalibrate log.jsonl plan.yaml -o {name}", 3) == reason


@pytest.mark.parametrize("name", ["model.pt2", "calibration.pt", "model.sensitivity.jsonl"])
def test_the_new_plan_replaces_nothing_that_the_plan_names(drifted: Path, name: str) -> None:
    reason = f"cannot write {name}: it is an input of this command ({Path.cwd() / name}); choose another place with --output"
    assert refused(f"monitor recalibrate log.jsonl plan.yaml -o {name}", 3) == reason
