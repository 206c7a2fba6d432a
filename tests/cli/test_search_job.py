"""One search job: what is asked of the table alone, what of the model, and what is printed."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpq.budget import Budget
from mpq.cli.search_job import Job, Quality, starting_schemes
from mpq.config import SearchSettings
from mpq.errors import BudgetError, UsageError
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import read_plan, write_plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.quality import Drop
from mpq.search.run import search
from tests.small import linear, random_table, table


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(found: Sensitivity | None = None, *, quality: Quality | None = None, **settings: Any) -> Job:
    made = SearchSettings(**{"trials": 0} | settings)
    return Job(found or random_table(1), Path("t.sensitivity.jsonl"), made, quality=quality or Quality(), reference=None, trust=False)


def without_data() -> Sensitivity:
    found = random_table(1)
    return Sensitivity(replace(found.header, data={}), errors=found.errors, finish=found.finish)


def test_quality_is_empty_where_nothing_is_asked() -> None:
    assert Quality().is_empty
    assert Quality(metric="a:b").is_empty
    assert not Quality(max_error=0.1).is_empty
    assert not Quality(drop=Drop(0.1, is_percent=True)).is_empty


def test_without_trials_the_table_alone_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    found = job().run(Budget("5bits"))
    assert found.plan == search(random_table(1), "5bits").plan
    assert found.plan.size.effective_bits <= 5
    assert capsys.readouterr() == ("", "")


def test_a_budget_that_cannot_be_met_is_refused_before_the_model_is_opened() -> None:
    with pytest.raises(BudgetError, match=r"^budget 1bits \(layers\) cannot be met: "):
        job(trials=8).run(Budget("1bits"))


def test_a_limit_of_the_error_needs_the_model() -> None:
    with pytest.raises(UsageError, match=r"^--max-error needs the model: leave out --trials 0$"):
        job(quality=Quality(max_error=0.1)).run(Budget("5bits"))


def test_a_table_without_data_measures_no_plans() -> None:
    with pytest.raises(UsageError) as caught:
        job(without_data(), trials=8).run(Budget("5bits"))
    expected = "t.sensitivity.jsonl was made without data, so plans cannot be measured: add --trials 0, or analyze with --calib"
    assert str(caught.value) == expected


def test_a_uniform_plan_has_one_scheme_and_a_known_quantizer() -> None:
    found = job().uniform(parse_scheme("int8"), "mse")
    assert {str(scheme) for scheme in found.plan.layers.values()} == {"int8"}
    assert found.plan.quantizer == "mse"
    with pytest.raises(UsageError, match=r"^'none' is not a quantizer: use one of "):
        job(trials=8).uniform(parse_scheme("int8"), "none")


def test_a_frontier_is_a_plan_for_each_budget_that_can_be_met_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    budgets = [Budget(text) for text in ("1bits", "4bits", "6bits")]
    job().frontier(budgets, Path("out"), json=False)
    assert sorted(path.name for path in Path("out").iterdir()) == ["frontier.csv", "plan-4bits.yaml", "plan-6bits.yaml"]
    rows = list(csv.DictReader(Path("out/frontier.csv").read_text().splitlines()))
    assert [row["budget"] for row in rows] == ["4bits", "6bits"]
    for row in rows:
        plan = read_plan(Path("out") / row["plan"])
        assert int(row["file_bytes"]) == plan.size.file_bytes
        assert int(row["layer_bytes"]) == plan.size.layer_bytes
        assert float(row["predicted"]) == pytest.approx(plan.evidence["predicted"])
        assert row["held_out"] == ""
    printed = capsys.readouterr()
    assert printed.err.startswith("left out: budget 1bits (layers) cannot be met: ")
    assert printed.err.endswith("wrote 2 plans and frontier.csv to out; next: mpq apply out/plan-4bits.yaml\n")
    assert "kl_divergence by budget" in printed.out


def test_a_frontier_as_json_is_all_that_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    job().frontier([Budget("5bits")], Path("out"), json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == "out"
    assert [row["plan"] for row in found["plans"]] == ["plan-5bits.yaml"]


def test_budgets_of_which_none_can_be_met_are_refused() -> None:
    with pytest.raises(BudgetError, match=r"^budget 1\.5bits"):
        job().frontier([Budget("1bits"), Budget("1.5bits")], Path("out"), json=False)
    assert not Path("out").exists()


def test_a_report_writes_the_plan_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    made = job()
    result = made.run(Budget("5bits"))
    made.report(result, Path("plan.yaml"), json=False)
    assert read_plan(Path("plan.yaml")).layers == result.plan.layers
    size, printed = result.plan.size, capsys.readouterr().err.splitlines()
    assert f"chosen: {result.reason}" in printed
    assert "table optimum: proven to have the least predicted error; 0 plans measured" in printed
    assert printed[-4:] == [
        f"wrote plan.yaml: {size.effective_bits:.4g} bits per weight over the layers ({size.layer_bytes:,} bytes),",
        f"{size.file_effective_bits:.4g} over the file ({size.file_bytes:,} bytes)",
        f"not searched: {size.unsearched_bytes:,} bytes, {size.unsearched_bytes / size.file_bytes:.1%} of the file "
        "(unquantized tensors, program and header)",
        "next: mpq apply plan.yaml",
    ]


def test_a_report_as_json_says_size_evidence_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    made = job()
    result = made.run(Budget("5bits"))
    made.report(result, Path("plan.yaml"), json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["output"], found["size"], found["reason"]) == ("plan.yaml", result.plan.size.to_dict(), result.reason)
    assert found["evidence"]["assignment"] == result.plan.assignment


def test_a_search_starts_from_a_plan_or_from_another_tools_assignment(capsys: pytest.CaptureFixture[str]) -> None:
    found = table([linear("a", 4, 64), linear("b", 4, 64)], {name: {"int4": 1.0, "int8": 0.5} for name in "ab"})
    plan = search(found, "9bits").plan
    write_plan(plan, "plan.yaml")
    assert starting_schemes(Path("plan.yaml"), found) == plan.layers
    Path("peer.csv").write_text("layer,scheme\na,int4\n")
    assert {name: str(scheme) for name, scheme in starting_schemes(Path("peer.csv"), found).items()} == {"a": "int4"}
    assert capsys.readouterr().err == "peer.csv does not name b: the search chooses them\n"


def test_a_plan_that_lacks_a_layer_was_made_for_another_analysis() -> None:
    small = table([linear("a", 4, 64)], {"a": {"int4": 1.0}})
    write_plan(search(small, "9bits").plan, "plan.yaml")
    found = table([linear("a", 4, 64), linear("b", 4, 64)], {name: {"int4": 1.0} for name in "ab"})
    with pytest.raises(UsageError, match=r"^plan\.yaml has no layer 'b': it was made for another analysis$"):
        starting_schemes(Path("plan.yaml"), found)
    with pytest.raises(
        UsageError, match=r"^cannot read none\.yaml: No such file or directory; --from takes a plan or another tool's assignment$"
    ):
        starting_schemes(Path("none.yaml"), found)
