import json
from pathlib import Path

import pytest

from mpq.records.artifact_files import read_header
from tests.cli.typed import done, refused


def test_figures_stand_beside_those_of_the_reference(folder: Path) -> None:
    line = "eval model.mpq.safetensors --data test.pt --num-samples 40"
    found = json.loads(done(f"{line} --json").out)
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert found["samples"] == 40
    assert {"kl_divergence", "top1_agreement", "relative_mse", "cosine_similarity", "accuracy", "loss"} <= figures.keys()
    assert 0 < figures["kl_divergence"]["quantized"] < 1
    assert 0.8 < figures["accuracy"]["reference"] <= 1
    lines = done(line).out.splitlines()
    assert lines[0] == "model.mpq.safetensors on 40 samples"
    assert [row.split()[0] for row in lines[2:]] == [figure["name"] for figure in found["figures"]]


def test_data_without_labels_has_no_accuracy_and_is_told(folder: Path) -> None:
    ran = done("eval model.mpq.safetensors --data calibration.pt --num-samples 8 --batch-size 4 --json")
    names = {figure["name"] for figure in json.loads(ran.out)["figures"]}
    assert "kl_divergence" in names
    assert not names & {"accuracy", "loss", "perplexity"}
    assert "data: 8 of 256 samples of [1, 8, 8], spread evenly over all" in ran.err


def test_a_reference_that_has_moved_is_named(folder: Path) -> None:
    Path("model.pt2").rename("moved.pt2")
    line = "eval model.mpq.safetensors --data test.pt --num-samples 8"
    reason = "the model model.pt2, named in model.mpq.safetensors, is missing: put it back, or give --reference MODEL"
    assert refused(line, 3) == reason
    done(f"{line} --reference moved.pt2")


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("none.mpq.safetensors --data test.pt", 3, "none.mpq.safetensors does not exist: run `mpq apply` first, or name the artifact"),
        ("plan.yaml --data test.pt", 3, "plan.yaml"),
        ("model.mpq.safetensors --data none.pt", 3, "none.pt does not exist: "),
        ("model.mpq.safetensors --data test.pt --num-samples 0", 2, "0 is not a number of samples: give 1 or more"),
        ("model.mpq.safetensors --data test.pt --outputs boxes", 2, "boxes"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(folder: Path, options: str, code: int, reason: str) -> None:
    assert reason in refused(f"eval {options}", code)


def test_the_artifact_is_only_read(folder: Path) -> None:
    before = (folder / "model.mpq.safetensors").read_bytes()
    done("eval model.mpq.safetensors --data test.pt --num-samples 8")
    assert (folder / "model.mpq.safetensors").read_bytes() == before
    assert read_header(folder / "model.mpq.safetensors").model["kind"] == "export"
