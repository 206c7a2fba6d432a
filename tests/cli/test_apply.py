import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mpq
from mpq.export.registry import TARGETS
from mpq.records.plan import read_plan
from mpq.recovery.registry import STEPS
from tests.cli.typed import done, refused, typed


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


def test_sketches_are_counted_where_the_plan_knows_them_and_named_where_not(folder: Path) -> None:
    predicted = read_plan("plan.yaml").size.file_bytes
    line = done("apply plan.yaml --no-recovery --sketches -o a.mpq.safetensors").out.splitlines()[0]
    size = (folder / "a.mpq.safetensors").stat().st_size
    more = size - predicted
    assert line == f"a.mpq.safetensors: {size:,} bytes, as predicted, plus {more:,} of sketches, which the plan does not count"
    done("search --budget 4.5bits --trials 0 --sketches -o sketched.yaml")
    sketched = read_plan("sketched.yaml")
    line = done("apply sketched.yaml --no-recovery -o b.mpq.safetensors").out.splitlines()[0]
    assert line == f"b.mpq.safetensors: {sketched.size.file_bytes:,} bytes, as predicted"
    line = done("apply sketched.yaml --no-recovery --no-sketches -o c.mpq.safetensors").out.splitlines()[0]
    assert line.endswith(f" bytes, as predicted, less the {more:,} of its sketches")
    assert "sketches: 1,483 bytes, of 4 tensors, for `mpq monitor`" in done("show b.mpq.safetensors").out.splitlines()
    assert json.loads(done("show sketched.yaml --json").out)["sketches"] == {"layers": [], "bytes": 1483}
    assert "sketches" not in done("show plan.yaml").out
    done(f"check b.mpq.safetensors --budget {sketched.size.file_bytes}B --scope file")
    assert typed(f"check b.mpq.safetensors --budget {sketched.size.file_bytes - 1}B --scope file").code == 1


def test_sketches_are_refused_without_room_or_model(folder: Path) -> None:
    size = read_plan("plan.yaml").size.file_bytes
    done("apply plan.yaml --no-recovery --sketches -o a.mpq.safetensors")
    more = (folder / "a.mpq.safetensors").stat().st_size - size
    text = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(text.replace("limit: 4.5bits", f"limit: {size}B").replace("scope: layers", "scope: file"))
    assert f"sketches take {more:,} bytes, and the plan's budget {size}B (file) leaves 0: leave out" in refused("apply --sketches", 3)
    (folder / "plan.yaml").write_text(text)
    assert "add --no-sketches" in refused("apply --no-recovery --shards x --sketches", 2)


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
