import json
import shutil
from pathlib import Path

import pytest

import mpq
from tests.cli.typed import done, refused, typed

SHORT = "--candidates 4,8 --num-samples 24 --trials 1"
LINE = f"compress model.pt2 --calib calibration.pt --budget 5bits --output made {SHORT}"


def commands(err: str) -> list[str]:
    return [line.removeprefix("$ mpq ") for line in err.splitlines() if line.startswith("$ mpq ")]


def test_four_commands_run_and_are_printed_and_all_files_stay(fresh: Path) -> None:
    ran = done(LINE)
    assert commands(ran.err) == [
        "analyze model.pt2 --calib calibration.pt --output made/model.sensitivity.jsonl --candidates 4,8 --num-samples 24",
        "search made/model.sensitivity.jsonl --budget 5bits --output made/plan.yaml --trials 1",
        "apply made/plan.yaml --output made/model.mpq.safetensors",
        "check made/plan.yaml made/model.mpq.safetensors",
    ]
    assert [line for line in ran.err.splitlines() if line.startswith("next: ")] == [
        "next: mpq eval made/model.mpq.safetensors --data FILE; mpq report made/plan.yaml"
    ]
    assert [line.split(":")[0] for line in ran.out.splitlines()[-2:]] == ["ok    made/plan.yaml", "ok    made/model.mpq.safetensors"]
    names = {path.name for path in Path("made").iterdir() if path.is_file()}
    assert names == {"model.sensitivity.jsonl", "model.study.journal", "plan.yaml", "model.mpq.safetensors"}
    assert mpq.read_plan("made/plan.yaml").budget == mpq.Budget("5bits")


def test_the_printed_commands_do_the_same_alone(fresh: Path) -> None:
    first = done(LINE)
    before = {path.name: path.read_bytes() for path in Path("made").iterdir() if path.is_file() and path.suffix != ".journal"}
    shutil.rmtree("made")
    Path("made").mkdir()
    for line in commands(first.err):
        done(line)
    after = {name: (Path("made") / name).read_bytes() for name in before}
    assert after["plan.yaml"] == before["plan.yaml"]
    assert after["model.mpq.safetensors"] == before["model.mpq.safetensors"]


def test_another_budget_keeps_the_analysis_and_json_is_one_document(fresh: Path) -> None:
    done(LINE)
    analysis = Path("made/model.sensitivity.jsonl").read_bytes()
    found = json.loads(done(f"{LINE.replace('5bits', '30%')} --json").out)
    assert list(found) == ["analyze", "search", "apply", "check"]
    assert found["analyze"]["output"] == "made/model.sensitivity.jsonl"
    assert found["apply"]["file_bytes"] == found["search"]["size"]["file_bytes"] == Path("made/model.mpq.safetensors").stat().st_size
    assert found["check"]["passed"] is True
    assert Path("made/model.sensitivity.jsonl").read_bytes() == analysis


def test_the_exit_code_is_that_of_the_check(fresh: Path) -> None:
    Path("mpq-budgets.yaml").write_text("mpq_budgets: 1\nbudgets:\n  - {files: made/model.mpq.safetensors, max_bytes: 10kB}\n")
    ran = typed(LINE)
    assert ran.code == 1
    assert [line[:4] for line in ran.out.splitlines() if "size of the file" in line or ": size:" in line] == ["FAIL"]
    assert "next: " in ran.err


def test_what_cannot_work_is_refused_before_anything_is_made(fresh: Path) -> None:
    line = "compress model.pt2 --output made --budget"
    assert refused(f"{line} 4:5bits", 2) == "--budget 4:5bits is a range: give one size here, and search the range with mpq search"
    assert refused(f"{line} 5bits --scope all", 2) == "--scope 'all' is unknown: use layers or file"
    assert refused(f"{line} 5bits --calib data:batches", 2) == (
        "--calib data:batches is called again by the steps after the analysis, which read its name from a file: add --trust"
    )
    assert "is not a budget" in refused(f"{line} much", 2) or "much" in refused(f"{line} much", 2)


@pytest.mark.parametrize("wrong", ["missing.pt2", "calibration.pt"])
def test_a_step_that_fails_ends_the_command_with_its_own_line(fresh: Path, wrong: str) -> None:
    Path("made").mkdir()
    assert wrong in refused(f"compress {wrong} --calib calibration.pt --budget 5bits --output made", 3)
