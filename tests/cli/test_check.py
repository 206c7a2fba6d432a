import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonschema import Draft202012Validator

from mpq.schemas import schema
from tests.cli.typed import ROOT, done, refused, typed


def larger(folder: Path) -> None:
    """The layers at int4 become int8."""
    text = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(re.sub(r": int4(-g\d+)?$", ": int8", text, flags=re.MULTILINE))


def commit(folder: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "plan.yaml"], [*author, "commit", "-qm", "Add a plan"]):
        subprocess.run(["git", *words], check=True, cwd=folder)


def test_a_started_file_of_budgets_is_valid_and_passes(folder: Path) -> None:
    done("check --init")
    text = (folder / "mpq-budgets.yaml").read_text()
    assert [each.message for each in Draft202012Validator(schema("budgets")).iter_errors(yaml.safe_load(text))] == []
    assert "plan.yaml: bits per weight" in done("check").out
    assert [rule["files"] for rule in yaml.safe_load(text)["budgets"]] == ["model.mpq.safetensors", "plan.yaml"]


def test_a_started_file_of_budgets_holds_other_models_too(folder: Path) -> None:
    torch.save({"a.weight": torch.zeros(2, 2)}, folder / "other.pt")
    done("check --init")
    assert "other.pt" in (folder / "mpq-budgets.yaml").read_text()


def test_a_file_of_budgets_is_not_overwritten(folder: Path) -> None:
    done("check --init")
    ran = typed("check --init")
    assert (ran.code, ran.err) == (2, "mpq: mpq-budgets.yaml already exists: edit it, or remove it first\n")


def test_nothing_to_start_from_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = typed("check --init")
    assert ran.code == 2
    assert ran.err.startswith("mpq: no plan and no model file below ")


def test_an_oversized_model_fails_and_the_layers_that_grew_are_named(folder: Path) -> None:
    commit(folder)
    done("check --init")
    larger(folder)
    ran = typed("check plan.yaml --baseline HEAD --max-growth 1%")
    assert ran.code == 1
    assert re.search(r"\n        \S+: \+[\d,]+ bytes \(int4\S* -> int8\)\n", ran.out)
    assert typed("check").code == 1


def test_growth_without_a_limit_means_none(folder: Path) -> None:
    commit(folder)
    last = done("check plan.yaml --baseline HEAD").out.splitlines()[-1]
    assert last == "ok    plan.yaml: growth: +0 bytes (+0.00%) since HEAD, allowed is 0%"


def test_inside_github_actions_failures_are_annotated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    assert "::error file=plan.yaml,title=mpq check%3A size of the layers::" in typed("check plan.yaml --budget 2bits").out
    assert (folder / "summary.md").read_text().startswith("### mpq check: 1 of 2 checks failed")
    ran = typed("check plan.yaml --budget 2bits --json")
    assert json.loads(ran.out)["passed"] is False
    assert "::error" in ran.err


def test_junit_is_written_whatever_the_outcome(folder: Path) -> None:
    assert typed("check plan.yaml --budget 2bits --junit junit.xml").code == 1
    assert 'failures="1"' in (folder / "junit.xml").read_text()


def test_several_files_are_a_list_in_json(folder: Path) -> None:
    ran = typed("check plan.yaml model.mpq.safetensors --budget 9bits --json")
    assert [each["file"] for each in json.loads(ran.out)["files"]] == ["plan.yaml", "model.mpq.safetensors"]


def test_any_model_file_is_held_to_bytes(folder: Path) -> None:
    size = (folder / "model.pt2").stat().st_size
    assert typed(f"check model.pt2 --budget {size}B").code == 0
    assert typed(f"check model.pt2 --budget {size - 1}B").code == 1
    ran = typed("check model.pt2 --budget 4bits")
    assert ran.err == "mpq: budget 4bits needs a plan or an artifact, and model.pt2 is neither: give bytes, for example --budget 12MB\n"


def test_an_artifact_is_measured_on_given_data(folder: Path) -> None:
    line = "check model.mpq.safetensors --data test.pt --num-samples 50"
    ran = done(f"{line} --max-error 0.1 --max-loaded 1MB")
    assert re.search(
        r"^ok    model.mpq.safetensors: error \(kl_divergence\): \S+ ±\S+ on 50 samples of test.pt, within", ran.out, re.MULTILINE
    )
    assert "ok    model.mpq.safetensors: loaded memory: " in ran.out
    assert "\nok    model.mpq.safetensors: error (accuracy): " in done(f"{line} --max-error 0.1 --metric accuracy").out
    assert typed(f"{line} --max-error 0").code == 1
    assert refused("check model.mpq.safetensors --data test.pt", 2) == "`data` 'test.pt' has no effect without `max_error`"
    assert refused("check model.mpq.safetensors --data none.pt --max-error 1", 3).startswith("none.pt does not exist: ")


def test_rules_measure_on_data_beside_the_file_of_budgets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = "{files: '*.mpq.safetensors', max_error: 0.1, data: test.pt, num_samples: 50, metric: top1_agreement}"
    (folder / "mpq-budgets.yaml").write_text(f"mpq_budgets: 1\nbudgets: [{rule}]\n")
    monkeypatch.chdir(folder.parent)
    assert "error (top1_agreement): " in done(f"check --budgets {folder.name}/mpq-budgets.yaml").out


def test_a_named_file_of_budgets_holds_besides_the_other_limits(folder: Path) -> None:
    done("check --init")
    (folder / "mpq-budgets.yaml").rename("limits.yaml")
    assert "plan.yaml: bits per weight: " in done("check plan.yaml --budgets limits.yaml --max-loaded 1MB").out
    assert typed("check --max-growth 1%").err == "mpq: --max-growth needs --baseline: a git revision such as origin/main, or a file\n"


def test_the_check_needs_neither_torch_nor_a_solver(folder: Path) -> None:
    done("check --init")
    program = "import sys; sys.argv = ['mpq', 'check']; from mpq.cli.main import app; app(standalone_mode=False);"
    program += "print([name for name in ('torch', 'scipy', 'optuna', 'jinja2', 'safetensors') if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def test_the_hook_and_the_action_call_the_check() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["entry"], hook["pass_filenames"]) == ("mpq-check", "mpq check", False)
    assert re.search(hook["files"], "models/plan.yaml")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    assert 'mpq" check "${words[@]}"' in next(step["run"] for step in action["runs"]["steps"] if step.get("name") == "Check the budgets")


def test_check_judges_an_edited_plan_as_it_stands(folder: Path) -> None:
    plan = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(plan.replace("  reduce.0: int4", "  reduce.0: int8", 1))
    ran = typed("check")
    assert ran.code == 1
    assert ran.out.startswith("FAIL  plan.yaml: size of the layers: ")


def test_check_limits_the_measured_error(folder: Path) -> None:
    assert typed("check plan.yaml --max-error 10").code == 0
    assert typed("check plan.yaml --max-error 1e-9").code == 1
