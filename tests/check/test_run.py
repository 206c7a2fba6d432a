import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpq.budget import Budget, Scope
from mpq.check.run import CERTAIN, Check, check_file, own_budget, relation
from mpq.errors import FormatError, UsageError
from mpq.files import Journal
from mpq.records.plan import plan_to_yaml, write_plan
from tests.check.making import TABLE, plan_of, write_artifact

BYTES = 2 * 64 * 34 + 8 * 66  # of the layers: rows of 64 int4 weights with a scale of 2 bytes, and of int8
WEIGHTS = 2 * 64 * 64 + 8 * 64
PLAN = plan_of("int4 int4 int8", 0.1)
FILE = PLAN.size.file_bytes
GGUF = "m.gguf is neither a plan nor an artifact: only its size can be checked, for example with --budget 12MB"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(PLAN, Path("plan.yaml"))


def only(name: str = "plan.yaml", **limits: Any) -> Check:
    (found,) = check_file(Path(name), **limits)
    return found


@pytest.mark.parametrize(
    ("taken", "limit", "text"),
    [
        (10, 10, "0 bytes under"),
        (9, 10, "1 bytes under"),
        (11, 10, "1 bytes (10.00%) over"),
        (1_001_012, 1_000_000, "1,012 bytes (0.10%) over"),
        (5, 0, "5 bytes over"),
        (0, 0, "0 bytes under"),
    ],
)
def test_a_relation_is_counted_in_bytes_and_in_percent_of_the_limit(taken: int, limit: int, text: str) -> None:
    assert relation(taken, limit) == text


def test_no_limit_is_no_check() -> None:
    Path("m.gguf").touch()
    assert check_file(Path("plan.yaml")) == check_file(Path("m.gguf")) == []


def test_a_budget_counts_the_layers_and_is_kept_to_the_byte() -> None:
    assert only(budget=f"{BYTES}B") == Check(
        "size of the layers",
        True,
        f"{BYTES:,} bytes, 4.4853 bits per weight; 0 bytes under the budget of {BYTES}B ({BYTES:,} bytes)"
        f"; not searched: {FILE - BYTES:,} bytes, 21.4% of the file",
    )
    over = only(budget=f"{BYTES - 1}B")
    assert (over.passed, "; 1 bytes (0.02%) over the budget of " in over.message) == (False, True)


def test_a_budget_of_the_file_counts_what_the_artifact_will_take_over_all_weights() -> None:
    found = only(budget="8bits", scope="file")
    assert found == Check(
        "size of the file",
        True,
        f"{FILE:,} bytes, {8 * FILE / (WEIGHTS + 40):.4f} bits per weight; "
        f"{WEIGHTS + 40 - FILE:,} bytes under the budget of 8bits ({WEIGHTS + 40:,} bytes)",
    )


def test_a_share_is_of_the_original_bytes_of_what_is_counted() -> None:
    assert f"({4 * WEIGHTS // 10:,} bytes)" in only(budget="10%").message
    assert f"({(4 * WEIGHTS + 160) // 10:,} bytes)" in only(budget="10%", scope="file").message


@pytest.mark.parametrize(("scope", "name"), [(None, "size of the file"), ("layers", "size of the layers")])
def test_a_budget_without_a_scope_counts_what_the_plans_own_does(scope: Scope | None, name: str) -> None:
    write_plan(replace(PLAN, budget=Budget("1MB", "file")), Path("plan.yaml"))
    assert only(budget="9bits", scope=scope).name == name


def test_a_scope_without_a_budget_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--scope layers says what --budget counts: give --budget too, for example --budget 4.5bits$"):
        check_file(Path("plan.yaml"), scope="layers")


def test_the_plans_own_budget_is_a_check_only_if_it_has_one() -> None:
    assert own_budget(PLAN) == []
    (kept,) = own_budget(replace(PLAN, budget=Budget(f"{FILE}B", "file")))
    (broken,) = own_budget(replace(PLAN, budget=Budget("4bits")))
    assert [(one.name, one.passed) for one in (kept, broken)] == [("size of the file", True), ("size of the layers", False)]


@pytest.mark.parametrize(
    ("limit", "passed", "message"),
    [
        (0.1, True, "0.1, within the limit of 0.1"),
        (0.5, True, "0.1, within the limit of 0.5"),
        (0.075, False, "0.1, 0.025 over the limit of 0.075"),
        (0.0, False, "0.1, 0.1 over the limit of 0"),
    ],
)
def test_the_error_is_the_held_out_one_of_the_evidence(limit: float, passed: bool, message: str) -> None:
    assert only(max_error=limit) == Check("error (kl_divergence, held-out)", passed, message)


def test_an_error_that_is_not_known_does_not_pass() -> None:
    write_plan(plan_of("int4 int4 int8", None), Path("plan.yaml"))
    message = "the plan has no held-out measurement: run `mpq search` with the model, without --trials 0"
    assert only(max_error=9.0) == Check("error (kl_divergence, held-out)", False, message)
    write_plan(replace(PLAN, evidence={}), Path("plan.yaml"))
    assert only(max_error=9.0) == Check("error (unknown metric, held-out)", False, message)
    write_plan(replace(PLAN, layers=plan_of("int8 int8 int8").layers), Path("plan.yaml"))
    message = "the layers were edited after they were measured: run `mpq search` again, or `mpq eval`"
    assert only(max_error=9.0) == Check("error (kl_divergence, held-out)", False, message)


def test_two_limits_are_two_checks() -> None:
    found = check_file(Path("plan.yaml"), budget="9bits", max_error=0.01)
    assert [(one.name, one.passed) for one in found] == [("size of the layers", True), ("error (kl_divergence, held-out)", False)]


def test_other_files_have_a_size_in_bytes_alone() -> None:
    Path("m.gguf").write_bytes(bytes(1000))
    assert only("m.gguf", budget="1kB") == Check("size of the file", True, "1,000 bytes; 0 bytes under the budget of 1kB (1,000 bytes)")
    assert not only("m.gguf", budget="999B", scope="file").passed
    for limits in ({"max_error": 1.0}, {"budget": "1kB", "scope": "layers"}):
        with pytest.raises(UsageError, match=rf"^{GGUF}$"):
            check_file(Path("m.gguf"), **limits)
    reason = "budget 4bits needs a plan or an artifact, and m.gguf is neither: give bytes, for example --budget 12MB"
    with pytest.raises(UsageError, match=rf"^{reason}$"):
        check_file(Path("m.gguf"), budget="4bits")


def test_an_analysis_has_no_size() -> None:
    Journal.create(Path("a.sensitivity.jsonl"), TABLE.header.to_dict()).close()
    with pytest.raises(UsageError, match=r"^a.sensitivity.jsonl is a sensitivity file, which has no size of its own: check a plan or an"):
        check_file(Path("a.sensitivity.jsonl"), budget="1kB")
    with pytest.raises(FormatError):
        check_file(Path("none.yaml"), budget="1kB")


def test_an_artifact_is_held_to_bits_of_its_layers_or_bytes_of_its_file() -> None:
    taken = write_artifact(PLAN, Path("m.mpq.safetensors"))
    name = "m.mpq.safetensors"
    assert only(name, budget=f"{BYTES}B").passed
    assert not only(name, budget=f"{BYTES - 1}B").passed
    assert only(name, budget="10%").message.endswith(
        f"the budget of 10% ({4 * WEIGHTS // 10:,} bytes); not searched: {taken - BYTES:,} bytes, {1 - BYTES / taken:.1%} of the file"
    )
    assert only(name, budget=f"{taken}B", scope="file").passed
    assert not only(name, budget=f"{taken - 1}B", scope="file").passed
    reason = "budget 4bits (file) needs the size of the whole model, which an artifact does not record: check the plan, or give bytes"
    with pytest.raises(UsageError, match=rf"^{re.escape(reason)}$"):
        check_file(Path(name), budget="4bits", scope="file")
    reason = "m.mpq.safetensors is an artifact, which has no measurements: give --data to measure it, or check its plan"
    with pytest.raises(UsageError, match=rf"^{reason}$"):
        check_file(Path(name), max_error=0.1)


def test_an_artifact_without_a_limit_is_held_to_the_budget_of_its_plan_beside_it() -> None:
    taken = write_artifact(PLAN, Path("m.mpq.safetensors"))
    Path("other.yaml").write_text("jobs: []\n")
    write_plan(replace(plan_of("int8 int8 int8"), budget=Budget("1B")), Path("another.yaml"))
    for budget, passed in ((Budget("4.5bits"), True), (Budget("4.4bits"), False), (Budget(f"{taken}B", "file"), True)):
        write_plan(replace(PLAN, budget=budget), Path("plan.yaml"))
        found = only("m.mpq.safetensors")
        assert found.passed is passed
        assert found.message.endswith(", from plan.yaml")


def test_an_artifact_without_a_plan_or_with_two_budgets_is_refused() -> None:
    write_artifact(PLAN, Path("m.mpq.safetensors"))
    reason = (
        "m.mpq.safetensors is an artifact, which has no budget, and no plan next to it has its layers: give --budget, or check the plan"
    )
    with pytest.raises(UsageError, match=rf"^{reason}$"):
        check_file(Path("m.mpq.safetensors"))
    other_model = replace(PLAN, model=PLAN.model | {"sha256": "c" * 64}, budget=Budget("9bits"))
    write_plan(other_model, Path("plan.yaml"))
    with pytest.raises(UsageError, match=rf"^{reason}$"):
        check_file(Path("m.mpq.safetensors"))
    write_plan(replace(PLAN, budget=Budget("9bits")), Path("a.yaml"))
    Path("b.yml").write_text(plan_to_yaml(replace(PLAN, budget=Budget("9bits"))))
    assert only("m.mpq.safetensors").passed
    Path("b.yml").write_text(plan_to_yaml(replace(PLAN, budget=Budget("8bits"))))
    with pytest.raises(UsageError, match=r"has the layers of several plans with different budgets \(a.yaml 9bits \(layers\), b.yml 8bits"):
        check_file(Path("m.mpq.safetensors"))


def test_a_limit_on_samples_on_which_the_reference_is_nearly_certain_says_so() -> None:
    write_plan(replace(PLAN, data=TABLE.header.data | {"caution": "the reference is nearly certain"}), Path("plan.yaml"))
    for limit, kept in ((0.5, "within"), (0.075, "0.025 over")):
        assert only(max_error=limit).message == f"0.1, {kept} the limit of {limit}{CERTAIN}"
