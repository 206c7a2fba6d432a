from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mpq.budget import size_bytes
from mpq.check.init_budgets import starting_budgets
from mpq.errors import UsageError
from mpq.records.plan import write_plan
from tests.check.making import TABLE, plan_of, write_artifact

HEAD = """\
# Limits that `mpq check` enforces for the models in this repository. Each is slightly above the current value; tighten as you like.
# Editors complete this file with its schema: mpq schema budgets -o budgets.schema.json
mpq_budgets: 1
budgets:
"""
HINTS = "    # baseline: origin/main\n    # max_growth: 1%\n    # forbid: {'*embed*': [int2, int3]}\n"


def named(root: Path) -> list[str]:
    return [rule["files"] for rule in yaml.safe_load(starting_budgets(root))["budgets"]]


def sized(path: Path, count: int) -> None:
    with path.open("wb") as file:
        file.truncate(count)


def test_a_plan_is_held_to_its_bits_rounded_up_and_a_quarter_more_than_its_error(tmp_path: Path) -> None:
    write_plan(plan_of("int4 int4 int8", 0.1), tmp_path / "plan.yaml")
    rule = "  - files: 'plan.yaml'\n    max_bits: 4.49  # now 4.4853\n    max_error: 0.125  # now 0.1, kl_divergence\n"
    assert starting_budgets(tmp_path) == HEAD + rule + HINTS


@pytest.mark.parametrize("stale", [True, False])
def test_a_plan_without_a_current_measurement_has_no_limit_of_error(tmp_path: Path, stale: bool) -> None:
    plan = plan_of("int4 int4 int8", None)
    if stale:
        plan = replace(plan_of("int4 int4 int8", 0.1), layers=plan_of("int8 int4 int8").layers)
    write_plan(plan, tmp_path / "plan.yaml")
    (rule,) = yaml.safe_load(starting_budgets(tmp_path))["budgets"]
    assert rule == {"files": "plan.yaml", "max_bits": 6.37 if stale else 4.49}


@given(st.integers(0, 10**11))
@example(0)
@example(999)
@example(951)
@example(952_000_000)
def test_a_model_file_has_room_for_five_percent_and_the_limit_three_digits(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    folder = tmp_path_factory.mktemp("one")
    sized(folder / "m.gguf", count)
    text = starting_budgets(folder)
    limit = yaml.safe_load(text)["budgets"][0]["max_bytes"]
    allowed = 0 if limit == "0B" else size_bytes(limit)
    assert 1.05 * count <= allowed + 1e-6
    assert allowed <= max(1.05 * count * 1.01 + 1, 0)
    assert f"# now {count:,}" in text


def test_an_artifact_is_held_to_its_bytes(tmp_path: Path) -> None:
    taken = write_artifact(plan_of("int4 int4 int8"), tmp_path / "m.mpq.safetensors")
    (rule,) = yaml.safe_load(starting_budgets(tmp_path))["budgets"]
    assert taken * 1.05 <= size_bytes(rule["max_bytes"]) <= taken * 1.06


def test_the_model_and_the_data_that_a_plan_or_an_artifact_was_made_from_are_left_out(tmp_path: Path) -> None:
    model = TABLE.header.model
    for name in ("model.pt2", "other.pt2", "third.pt2", "data.npz"):
        sized(tmp_path / name, 10)
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "images.pt")
    plan = replace(
        plan_of("int4 int4 int8"),
        model=model | {"path": "model.pt2"},
        data={"source": "images.pt", "sha256": "b" * 64, "held_out": 0.25, "seed": 0},
    )
    write_plan(plan, tmp_path / "plan.yaml")
    write_artifact(replace(plan, model=model | {"path": "other.pt2"}), tmp_path / "m.mpq.safetensors")
    assert named(tmp_path) == ["m.mpq.safetensors", "plan.yaml", "third.pt2"]


def test_a_model_beside_a_plan_in_another_folder_is_another_model(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    write_plan(plan_of("int4 int4 int8"), tmp_path / "plans" / "plan.yaml")
    sized(tmp_path / "model.pt2", 10)
    assert named(tmp_path) == ["model.pt2", "plans/plan.yaml"]


def test_an_archive_of_torch_counts_only_if_a_tensor_in_it_is_called_weight(tmp_path: Path) -> None:
    torch.save({"linear.weight": torch.zeros(2)}, tmp_path / "model.pt")
    torch.save((torch.zeros(2), torch.ones(2)), tmp_path / "inputs.pt")
    torch.save({"images": torch.zeros(2)}, tmp_path / "images.bin")
    (tmp_path / "not-a-zip.pth").write_bytes(b"PK damaged")
    assert named(tmp_path) == ["model.pt", "not-a-zip.pth"]


@pytest.mark.parametrize(
    "place", [".git/m.onnx", "node_modules/m.onnx", "a/site-packages/b/m.onnx", "__pycache__/m.onnx", ".hidden.onnx", "m.txt"]
)
def test_what_is_hidden_installed_or_no_model_is_passed_over(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    sized(tmp_path / place, 10)
    with pytest.raises(UsageError) as error:
        starting_budgets(tmp_path)
    reason = f"no plan and no model file below {tmp_path.resolve()}: run `mpq search` first, or write the budgets by hand"
    assert str(error.value) == reason


def test_yaml_of_something_else_damaged_plans_and_folders_named_like_models_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ci.yaml").write_text("jobs: []\n")
    (tmp_path / "bad.yml").write_text("mpq_plan: 1\nlayers: 3\n")
    (tmp_path / "bad.mpq.safetensors").write_bytes(b"nothing")
    (tmp_path / "folder.onnx").mkdir()
    write_plan(plan_of("int4 int4 int8"), tmp_path / "good.yml")
    assert named(tmp_path) == ["good.yml"]


@pytest.mark.parametrize(
    "name", ["it's.gguf", "a b.gguf", "#1.gguf", "back\\slash.gguf", "[x]: {y}.gguf", "new\nline.gguf", "é.gguf", "'\".gguf"]
)
def test_any_file_name_is_read_back_from_the_yaml_as_it_is(tmp_path: Path, name: str) -> None:
    sized(tmp_path / name, 1)
    assert named(tmp_path) == [name]
