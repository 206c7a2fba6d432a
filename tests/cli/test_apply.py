import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mpq
from mpq.export.registry import TARGETS
from mpq.recovery.registry import STEPS
from tests.cli.typed import done, refused


def test_the_artifact_has_the_size_that_the_plan_predicts_and_runs_alone(folder: Path) -> None:
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    assert (folder / "model.mpq.safetensors").stat().st_size == plan["size"]["file_bytes"]
    images, _ = torch.load(folder / "test.pt", weights_only=True)
    assert mpq.load(folder / "model.mpq.safetensors")(images[:4]).shape == (4, 10)


def test_apply_says_what_each_step_of_recovery_did(folder: Path) -> None:
    lines = done("apply plan.yaml --no-tune").out.splitlines()
    assert lines.pop(3).startswith("not searched: ")
    kept = r"kept for \d+ layers: KL [\d.e-]+ -> [\d.e-]+ on \d+ held-out samples"
    assert re.fullmatch(rf"Sequential re-quantization ({kept}|not kept: KL .*, no significant gain.*) \(\d+ s\)", lines[3])
    assert lines[4].startswith("Bias correction ")
    assert re.fullmatch(
        r"Block reconstruction (not )?kept.*: KL [\d.e-]+ -> [\d.e-]+ on 6 held-out samples.*, 8 passes over 16 samples \(\d+ s\)", lines[5]
    )
    assert lines[6] == "Tuning skipped: switched off"
    found = json.loads(done("apply plan.yaml --no-tune --json").out)["recovery"]
    assert [step["name"] for step in found] == [step.name for step in STEPS]
    keys = {"name", "title", "kept", "reason", "metric", "before", "after", "stderr", "seconds", "stopped", "details"}
    assert all(step.keys() == keys for step in found)
    assert found[0]["stderr"].keys() == {"before", "after"}
    kept_steps = [step["name"] for step in found if step["kept"]]
    assert json.loads(done("show model.mpq.safetensors --json").out)["recovery"] == kept_steps


@pytest.mark.parametrize("option", ["--no-recovery", "--no-corrections"])
def test_recovery_is_switched_off_by_its_name_and_by_the_old_one(folder: Path, option: str) -> None:
    steps = json.loads(done(f"apply plan.yaml {option} --json").out)["recovery"]
    assert [step["reason"] for step in steps] == len(STEPS) * ["skipped: switched off"]
    assert "--no-corrections" not in done("apply --help").out
    assert "recovery: none" in done("show model.mpq.safetensors").out


def test_the_output_is_named_after_the_model_or_as_asked(fresh: Path, made: Path) -> None:
    for name in ("plan.yaml", "model.sensitivity.jsonl"):
        shutil.copy(made / name, fresh)
    done("apply plan.yaml --no-recovery")
    done("apply plan.yaml --no-recovery -o other.safetensors")
    assert (fresh / "model.mpq.safetensors").read_bytes() == (fresh / "other.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("none.yaml", 3, "none.yaml does not exist: run `mpq search` first, or name the plan"),
        ("plan.yaml -o plan.yaml", 3, "plan.yaml"),
        ("plan.yaml -o none/x.safetensors", 3, "cannot write none/x.safetensors: No such file or directory"),
        ("plan.yaml --reference none.pt2", 3, "none.pt2"),
        ("plan.yaml --tune-minutes 0", 2, "0 minutes is not enough time to tune: give a positive number, or disable tuning"),
    ],
)
def test_what_cannot_be_applied_is_refused_and_nothing_written(folder: Path, options: str, code: int, reason: str) -> None:
    assert reason in refused(f"apply {options}", code)


def test_an_unknown_target_is_refused_before_anything_is_written(folder: Path) -> None:
    (folder / "model.mpq.safetensors").unlink()
    reason = refused("apply plan.yaml --to onxx", 2)
    assert reason == f"'onxx' is not a target: use one of {', '.join(TARGETS)}"
