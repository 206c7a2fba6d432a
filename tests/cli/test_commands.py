import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mpq
from tests.cli.typed import done, files, refused, typed


def test_the_way_through_as_it_is_typed(fresh: Path) -> None:
    (fresh / "model.pt2").rename(fresh / "model.pt")
    assert "next: mpq search --budget 4.5bits" in done("analyze model.pt --calib calibration.pt --num-samples 16").err
    assert "next: mpq apply plan.yaml" in done("search --budget 4.5bits --trials 2").err
    assert "model.mpq.safetensors" in done("apply plan.yaml").out
    assert done("check plan.yaml --budget 4.5bits").out.startswith("ok    plan.yaml: size of the layers: ")
    low = typed("check plan.yaml --budget 4bits")
    assert low.code == 1
    assert "over the budget of 4bits (12,288 bytes)" in low.out
    assert "top1_agreement" in done("eval model.mpq.safetensors --data test.pt --num-samples 50").out
    assert "an artifact of model.pt (export)" in done("show model.mpq.safetensors").out
    assert files() == [
        "calibration.pt",
        "model.mpq.safetensors",
        "model.pt",
        "model.sensitivity.jsonl",
        "model.study.journal",
        "plan.yaml",
        "test.pt",
    ]


def test_the_artifact_has_the_size_that_the_plan_predicts_and_runs_alone(folder: Path) -> None:
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    assert (folder / "model.mpq.safetensors").stat().st_size == plan["size"]["file_bytes"]
    images, _ = torch.load(folder / "test.pt", weights_only=True)
    assert mpq.load(folder / "model.mpq.safetensors")(images[:4]).shape == (4, 10)


def test_the_demo_works_in_its_own_folder_and_comes_back(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr("mpq.cli.demo._steps", lambda budget: seen.append(Path.cwd()))
    assert "files are in kept" in done("demo chars --keep kept").out
    assert "the files were temporary" in done("demo").out
    assert (seen[0], Path.cwd()) == (fresh / "kept", fresh)
    assert not seen[1].exists()
    assert files() == sorted(["calibration.pt", "model.pt2", "test.pt", "kept", "kept/calibration.pt", "kept/model.pt2", "kept/test.pt"])


def test_a_demo_whose_step_fails_stops_there(fresh: Path) -> None:
    ran = typed("demo --budget 1bits --keep kept")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("mpq: budget 1bits (layers) cannot be met: ")
    assert "$ mpq apply" not in ran.out


def test_the_next_step_names_an_analysis_that_would_not_be_found(fresh: Path) -> None:
    (fresh / "runs").mkdir()
    told = done("analyze model.pt2 --calib calibration.pt --num-samples 8 --method weight --output runs/a.sensitivity.jsonl").err
    assert "next: mpq search runs/a.sensitivity.jsonl --budget 4.5bits" in told


def test_two_analyses_in_a_folder_are_listed(folder: Path) -> None:
    shutil.copy(folder / "model.sensitivity.jsonl", folder / "other.sensitivity.jsonl")
    assert refused("search --budget 4.5bits", 2) == (
        "2 analyses in this folder (model.sensitivity.jsonl, other.sensitivity.jsonl): name one, "
        "for example `mpq search model.sensitivity.jsonl --budget 4.5bits`"
    )
    done("search other.sensitivity.jsonl --budget 4.5bits --trials 0")


def test_the_same_seed_gives_the_same_plan_byte_for_byte(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    for name in ("one", "two"):
        shutil.copytree(folder, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        Path("model.study.journal").unlink()
        done("search --budget 5bits --trials 4 --seed 3 -o new.yaml")
        plans.append(Path("new.yaml").read_bytes())
    assert plans[0] == plans[1]


def test_a_finished_search_is_not_measured_again(folder: Path) -> None:
    before = (folder / "plan.yaml").read_bytes()
    assert " 0 plans measured" in done("search --budget 4.5bits --trials 2").err
    assert (folder / "plan.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("analyze model.pt2 --num-samples 24", {"output", "layers", "finish", "coverage", "table"}),
        ("search --budget 4.5bits --trials 2", {"output", "size", "evidence", "reason"}),
        ("search --budget 4.5bits --trials 0", {"output", "size", "evidence", "reason"}),
        ("apply plan.yaml", {"output", "file_bytes", "original_bytes", "size", "recovery", "fallbacks"}),
        ("check plan.yaml", {"file", "passed", "checks"}),
        ("eval model.mpq.safetensors --data test.pt --num-samples 8", {"samples", "source", "figures"}),
        ("show plan.yaml", {"file", "kind", "model", "budget", "quantizer", "size", "evidence", "evidence_is_current", "layers"}),
        ("show model.mpq.safetensors", {"file", "kind", "model", "quantizer", "recovery", "stopped", "size", "layers"}),
        ("show model.sensitivity.jsonl", {"file", "kind", "model", "data", "settings", "missing", "finish", "layers"}),
    ],
)
def test_json_is_the_whole_of_stdout(folder: Path, line: str, keys: set[str]) -> None:
    assert set(json.loads(done(f"{line} --json").out)) == keys


def test_apply_says_what_each_step_of_recovery_did(folder: Path) -> None:
    lines = done("apply plan.yaml --no-tune").out.splitlines()
    kept = r"kept for \d+ layers: KL [\d.e-]+ -> [\d.e-]+ on \d+ held-out samples"
    assert re.fullmatch(rf"Sequential re-quantization ({kept}|not kept: KL .*, no significant gain.*) \(\d+ s\)", lines[3])
    assert lines[4].startswith("Bias correction ")
    assert lines[5] == "Tuning skipped: switched off"
    found = json.loads(done("apply plan.yaml --no-tune --json").out)["recovery"]
    assert [step["name"] for step in found] == ["sequential", "bias_correction", "tuning"]
    keys = {"name", "title", "kept", "reason", "metric", "before", "after", "stderr", "seconds", "stopped", "details"}
    assert all(step.keys() == keys for step in found)
    assert found[0]["stderr"].keys() == {"before", "after"}
    kept_steps = [step["name"] for step in found if step["kept"]]
    assert json.loads(done("show model.mpq.safetensors --json").out)["recovery"] == kept_steps


@pytest.mark.parametrize("option", ["--no-recovery", "--no-corrections"])
def test_recovery_is_switched_off_by_its_name_and_by_the_old_one(folder: Path, option: str) -> None:
    steps = json.loads(done(f"apply plan.yaml {option} --json").out)["recovery"]
    assert [step["reason"] for step in steps] == 3 * ["skipped: switched off"]
    assert "--no-corrections" not in done("apply --help").out
    assert "recovery: none" in done("show model.mpq.safetensors").out


def test_json_of_a_single_calibration_sample_has_null_for_its_standard_error(fresh: Path) -> None:
    found = json.loads(done("analyze model.pt2 --num-samples 2 --candidates 8 --json").out)
    assert {row["stderr"] for row in found["table"]} == {None}


def test_show_gives_each_layer_a_bar_of_its_bits(folder: Path) -> None:
    lines = done("show plan.yaml").out.splitlines()
    heads = [line for line in lines if line.startswith("layer ")]
    assert heads[0].split() == ["layer", "scheme", "bpw", "bytes", "bits", "per", "weight"]
    for line in lines[lines.index(heads[0]) + 1 :]:
        _, _, bits, _, bar = line.split()
        assert bar == "█" * round(float(bits))


def test_show_says_when_the_layers_were_edited_after_the_search(folder: Path) -> None:
    plan = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(plan.replace("  head: int4", "  head: int8", 1))
    assert "evidence: of other schemes: the layers were edited since" in done("show").out


def test_search_lists_its_finalists(folder: Path) -> None:
    lines = done("search --budget 4.5bits --trials 2").out.splitlines()
    assert lines[1].split() == ["finalist", "bpw", "predicted", "calibration", "held-out"]
    assert lines[2].startswith("exact ")
    assert any(line.startswith("uniform int4 ") for line in lines)


def test_check_judges_an_edited_plan_as_it_stands(folder: Path) -> None:
    plan = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(plan.replace("  reduce.0: int4", "  reduce.0: int8", 1))
    ran = typed("check")
    assert ran.code == 1
    assert ran.out.startswith("FAIL  plan.yaml: size of the layers: ")


def test_check_limits_the_measured_error(folder: Path) -> None:
    assert typed("check plan.yaml --max-error 10").code == 0
    assert typed("check plan.yaml --max-error 1e-9").code == 1


def test_quiet_leaves_results_alone(folder: Path) -> None:
    assert done("--quiet analyze model.pt2 --num-samples 24").err == ""
