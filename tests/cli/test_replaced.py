"""Commands say what they replace: a plan, or the artifact of one, with other schemes than the new."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mpq.cli.replaced import say_replaced
from mpq.records.activations import ActivationGroup, RoundedTensor
from mpq.records.plan import read_plan
from tests.cli.typed import done


def replaced(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("replaces ")]


def test_a_search_names_the_plan_that_it_replaces(folder: Path) -> None:
    old = read_plan(folder / "plan.yaml").size
    said = replaced(done("search --budget 6bits --trials 0").err)
    bits = f"{old.effective_bits:.3f}".rstrip("0")
    assert said == [
        f"replaces plan.yaml, which held another plan for 4.5bits (layers): {bits} bits per weight, {old.file_bytes:,} bytes; "
        "use --output to keep both"
    ]
    assert replaced(done("search --budget 6bits --trials 0").err) == []


def test_apply_names_the_artifact_of_another_plan(folder: Path) -> None:
    old = read_plan(folder / "plan.yaml").size
    assert replaced(done("apply plan.yaml --no-recovery").err) == []
    done("search --budget 6bits --trials 0 --output other.yaml")
    bits = f"{old.effective_bits:.3f}".rstrip("0")
    assert replaced(done("apply other.yaml --no-recovery").err) == [
        f"replaces model.mpq.safetensors, which held the artifact of another plan: {bits} bits per weight, {old.file_bytes:,} bytes; "
        "use --output to keep both"
    ]


def test_the_kind_of_a_file_is_not_decided_by_its_ending(folder: Path) -> None:
    done("search --budget 4.5bits --trials 0 --output best.yml")
    assert replaced(done("search --budget 4.5bits --trials 0 --output best.yml").err) == []
    old = read_plan(folder / "best.yml").size
    bits = f"{old.effective_bits:.3f}".rstrip("0")
    assert replaced(done("search --budget 6bits --trials 0 --output best.yml").err) == [
        f"replaces best.yml, which held another plan for 4.5bits (layers): {bits} bits per weight, {old.file_bytes:,} bytes; "
        "use --output to keep both"
    ]


def test_a_sensitivity_file_is_named_as_such(folder: Path) -> None:
    shutil.copy("model.sensitivity.jsonl", "other.yaml")
    assert replaced(done("search --budget 6bits --trials 0 --output other.yaml").err) == [
        "replaces other.yaml, which held a sensitivity file; use --output to keep both"
    ]


def test_json_of_another_program_is_not_called_a_sensitivity_file(folder: Path) -> None:
    Path("other.yaml").write_text('{"a": 1}\n')
    said = replaced(done("search --budget 6bits --trials 0 --output other.yaml").err)
    assert said == ["replaces other.yaml, which is not a file that mpq can read; use --output to keep both"]


def test_activations_make_another_plan_and_another_artifact(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensor = RoundedTensor(("conv.0",), 0.5, 3)
    plan = read_plan("plan.yaml")
    rounded = replace(plan, activations={"0": ActivationGroup("a8", (tensor,))})
    for file, held in (("plan.yaml", "another plan for 4.5bits (layers)"), ("model.mpq.safetensors", "the artifact of another plan")):
        say_replaced(Path(file), plan)
        assert capsys.readouterr().err == ""
        say_replaced(Path(file), rounded)
        assert capsys.readouterr().err.startswith(f"replaces {file}, which held {held}: ")


def test_a_file_of_another_kind_is_named_as_such(folder: Path) -> None:
    (folder / "plan.yaml").write_text("a: 1\n")
    said = replaced(done("search --budget 6bits --trials 0").err)
    assert said == ["replaces plan.yaml, which is not a file that mpq can read; use --output to keep both"]
