import json
from pathlib import Path

import pytest

from mpq.records.sensitivity import read_sensitivity
from tests.cli.typed import done, refused


def test_the_next_step_names_an_analysis_that_would_not_be_found(fresh: Path) -> None:
    (fresh / "runs").mkdir()
    told = done("analyze model.pt2 --calib calibration.pt --num-samples 8 --method weight --output runs/a.sensitivity.jsonl").err
    assert "next: mpq search runs/a.sensitivity.jsonl --budget 4.5bits" in told


def test_json_of_a_single_calibration_sample_has_null_for_its_standard_error(fresh: Path) -> None:
    found = json.loads(done("analyze model.pt2 --num-samples 2 --candidates 8 --json").out)
    assert {row["stderr"] for row in found["table"]} == {None}


def test_without_data_the_file_beside_the_model_is_taken_and_named(fresh: Path) -> None:
    told = done("analyze model.pt2 --num-samples 8 --method weight --candidates 4").err
    assert "calibration: calibration.pt, found next to the model; --calib chooses another" in told
    found = read_sensitivity(fresh / "model.sensitivity.jsonl")
    assert found.finished
    assert found.header.data["source"] == "calibration.pt"
    assert {str(scheme).partition("-")[0] for schemes in found.header.candidates.values() for scheme in schemes} == {"int4"}


def test_targets_and_ignore_choose_the_layers(fresh: Path) -> None:
    done("analyze model.pt2 --num-samples 8 --method weight --candidates 4 --targets 're:.*' --ignore head -o a.jsonl")
    names = [layer.name for layer in read_sensitivity(fresh / "a.jsonl").layers]
    assert names
    assert "head" not in names


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("none.pt2", 3, "none.pt2"),
        ("model.pt2 --calib none.pt", 3, "none.pt does not exist: "),
        ("model.pt2 --candidates 1", 2, "'1' bits is not a candidate: "),
        ("model.pt2 --method best", 2, "'best' is not a method: use one of auto, measure, fisher, weight"),
        ("model.pt2 --quantizer best", 2, "'best' is not a quantizer: "),
        ("model.pt2 --targets none", 2, "'none'"),
        ("model.pt2 -o model.pt2", 3, "model.pt2"),
        ("model.pt2 -o none/x.jsonl", 3, "none/x.jsonl"),
    ],
)
def test_what_cannot_be_analyzed_is_refused_and_nothing_written(fresh: Path, options: str, code: int, reason: str) -> None:
    assert reason in refused(f"analyze {options}", code)
