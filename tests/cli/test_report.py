import json
from pathlib import Path

import pytest

from mpq.data.batch import Batch
from mpq.monitor.baseline import baseline_of
from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from mpq.records.baseline import write_baseline
from tests.cli.typed import done, refused, typed
from tests.monitor.conftest import data, model, run


def test_a_plan_is_reported_with_the_sensitivity_file_beside_it(folder: Path) -> None:
    assert done("report plan.yaml").out.startswith("plan.report.html: ")
    text = (folder / "plan.report.html").read_text()
    assert 'id="frontier"' in text
    assert 'id="finalists"' in text


def test_a_sensitivity_file_is_reported_alone(folder: Path) -> None:
    ran = done("report model.sensitivity.jsonl -o out.html --json")
    assert json.loads(ran.out) == {"output": "out.html", "bytes": (folder / "out.html").stat().st_size, "pictures": []}


def test_an_artifact_is_reported_with_its_frontier(folder: Path) -> None:
    done("report model.mpq.safetensors")
    assert 'id="margin"' in (folder / "model.report.html").read_text()


def test_pictures_are_written_beside_the_page(folder: Path) -> None:
    done("report plan.yaml --png")
    for name in ("frontier", "bits", "heat"):
        assert (folder / f"plan.{name}.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_sensitivity_file_the_report_says_what_it_lacks(folder: Path) -> None:
    (folder / "model.sensitivity.jsonl").unlink()
    ran = done("report plan.yaml")
    assert "warning: the report has no frontier and no heat map: the analysis of plan.yaml is not in its folder (model.sens" in ran.err


def test_a_sensitivity_file_of_another_model_is_refused(folder: Path) -> None:
    text = (folder / "plan.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("sha256: ", "sha256: 0", 1))
    ran = typed("report other.yaml --sensitivity model.sensitivity.jsonl")
    assert (ran.code, ran.err) == (
        3,
        "mpq: model.sensitivity.jsonl was made for another model or other layers than other.yaml: name the sensitivity file it came from\n",
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    ran = typed(f"report {tmp_path}/nothing.yaml")
    assert ran.code == 3
    assert ran.err.endswith("nothing.yaml does not exist: name a sensitivity file, a plan or an artifact\n")


def test_the_same_files_give_the_same_page(folder: Path) -> None:
    done("report plan.yaml -o a.html")
    done("report plan.yaml -o b.html")
    assert (folder / "a.html").read_bytes() == (folder / "b.html").read_bytes()


def test_two_plans_are_compared_and_an_evaluation_stands_beside(folder: Path) -> None:
    done("search --budget 6bits --trials 0 -o old.yaml")
    done("search --budget 5bits --trials 0 -o new.yaml")
    done("apply new.yaml --no-recovery -o new.mpq.safetensors")
    (folder / "new.evaluation.json").write_text(done("eval new.mpq.safetensors --data test.pt --json").out)
    done("report old.yaml new.yaml")
    page = (folder / "new.report.html").read_text()
    assert 'id="compare"' in page
    assert "Against old.yaml" in page
    assert "Accuracy on " in page
    assert "Not searched" in page
    reason = refused("report old.yaml --evaluation new.evaluation.json", 3)
    assert reason.startswith("new.evaluation.json was made for other schemes than those of old.yaml: run `mpq eval`")
    assert refused("report model.sensitivity.jsonl new.yaml", 2).startswith("model.sensitivity.jsonl is not a plan: a report compares two")


def test_the_limits_of_a_plan_are_a_column_of_its_layers(folder: Path) -> None:
    (folder / "plan.limit.json").write_text(done("show plan.yaml --limit --json").out)
    done("report plan.yaml")
    assert '<button type="button">limit</button>' in (folder / "plan.report.html").read_text()
    done("search --budget 6bits --trials 0 -o other.yaml")
    done("report other.yaml")
    assert '<button type="button">limit</button>' not in (folder / "other.report.html").read_text()
    reason = refused("report other.yaml --limit plan.limit.json", 3)
    assert reason.startswith("plan.limit.json was made for other schemes than those of other.yaml: run `mpq show other.yaml --limit")
    assert refused("report model.sensitivity.jsonl --limit plan.limit.json", 2).endswith("is not a plan: name the plan")


def test_the_log_of_a_monitor_is_reported_against_the_baseline_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = model()
    baseline = baseline_of(module, [Batch((inputs,)) for inputs in data(0)])
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, data(1))
        append(watching, "log.jsonl")
    told = refused("report log.jsonl", 2)
    assert told == "0 baselines next to log.jsonl: name one with --against ARTIFACT"
    write_baseline(baseline, Path("m.mpq.safetensors"))
    assert done("report log.jsonl").out.startswith("log.report.html: ")
    assert "Nothing has drifted." in Path("log.report.html").read_text()
    found = json.loads(done("report log.jsonl --against m.mpq.safetensors -o out.html --json").out)
    assert found == {"output": "out.html", "bytes": Path("out.html").stat().st_size, "pictures": []}
    for option in ("--png", "--limit plan.limit.json", "--evaluation model.evaluation.json", "--sensitivity model.sensitivity.jsonl"):
        told = refused(f"report log.jsonl {option}", 2)
        assert told == "log.jsonl is the log of a monitor: give only --against, --output and --json with it"


def test_other_files_have_no_baseline(folder: Path) -> None:
    told = "--against applies only to a monitor's log, and plan.yaml is not one: leave it out"
    assert refused("report plan.yaml --against model.mpq.safetensors", 2) == told
