import json
import shutil
from pathlib import Path

import pytest

from mpq.records.plan import read_plan
from tests.cli.typed import done, refused


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


def test_search_lists_its_finalists(folder: Path) -> None:
    lines = done("search --budget 4.5bits --trials 2").out.splitlines()
    assert lines[1].split() == ["finalist", "bpw", "predicted", "calibration", "held-out"]
    assert lines[2].startswith("table optimum ")
    assert any(line.startswith("uniform int4 ") for line in lines)


def test_the_plan_keeps_the_budget_and_the_pins(folder: Path) -> None:
    done("search --budget 5bits --trials 0 --pin head=int8 -o new.yaml")
    plan = read_plan("new.yaml")
    assert (str(plan.budget), plan.pinned, str(plan.layers["head"])) == ("5bits (layers)", ("head",), "int8")
    assert plan.size.effective_bits <= 5


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("--budget much", 2, "'much' is not a budget: "),
        ("--budget 1bits --trials 0", 2, "budget 1bits (layers) cannot be met: "),
        ("--budget 5bits --scope all", 2, "--scope 'all' is unknown: use layers or file"),
        ("none.sensitivity.jsonl --budget 5bits", 3, "none.sensitivity.jsonl"),
        ("--budget 5bits --trials -1", 2, "trials is -1: give 0 or more"),
        ("--budget 5bits --trials 0 -o model.sensitivity.jsonl", 3, "model.sensitivity.jsonl"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_written(folder: Path, options: str, code: int, reason: str) -> None:
    assert reason in refused(f"search {options}", code)


def test_ties_are_printed_with_their_cost_and_stand_in_the_json(folder: Path) -> None:
    ran = done("search --budget 4.5bits --trials 0 --tie middle.0,reduce.0 -o new.yaml")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("ties: ")]
    assert line.startswith("ties: 1 group of layers share one scheme; least predicted error ")
    ties = json.loads(done("search --budget 4.5bits --trials 0 --tie middle.0,reduce.0 -o new.yaml --json").out)["ties"]
    assert ties["groups"] == 1
    assert ties["tied"] >= ties["free"] > 0
    assert "ties" not in json.loads(done("search --budget 4.5bits --trials 0 -o new.yaml --json").out)


def test_a_range_of_budgets_shows_the_error_without_ties_too(folder: Path) -> None:
    head, *rows = done("search --budget 4.5:5:0.5bits --trials 0 --tie middle.0,reduce.0").out.splitlines()[1:]
    assert head.split() == ["budget", "bpw", "file", "bytes", "not", "searched", "predicted", "without", "ties", "held-out"]
    assert len(rows) == 2
    assert all(float(row.split()[-3]) >= float(row.split()[-2]) for row in rows)


def test_a_search_for_a_target_takes_only_what_the_target_stores(folder: Path) -> None:
    done("search --budget 16bits --trials 0 --for executorch -o new.yaml")
    assert {str(scheme) for scheme in read_plan("new.yaml").layers.values()} == {"int8"}
    assert "compressed-tensors" in refused("search --budget 4.5bits --for vllm", 2)
    assert refused("search --uniform int8 --for onnx", 2) == "--uniform gives every layer one scheme: leave out --for"
