import json
from pathlib import Path

from mpq.records.plan import read_plan
from tests.cli.typed import done, typed


def test_a_layer_is_explained_by_its_alternatives(folder: Path) -> None:
    plan = read_plan(folder / "plan.yaml")
    name = next(iter(plan.layers))
    found = json.loads(done(f"explain plan.yaml {name} --json").out)
    assert [each["scheme"] for each in found["alternatives"] if each["chosen"]] == [str(plan.layers[name])]
    assert f"{name} is {plan.layers[name]}" in done(f"explain plan.yaml {name}").out


def test_an_unknown_layer_is_refused(folder: Path) -> None:
    ran = typed("explain plan.yaml nothing")
    assert ran.code == 2
    assert ran.err.startswith("mpq: the plan has no layer 'nothing'")


def test_without_a_sensitivity_file_there_is_nothing_to_explain(folder: Path) -> None:
    (folder / "model.sensitivity.jsonl").unlink()
    name = next(iter(read_plan(folder / "plan.yaml").layers))
    ran = typed(f"explain plan.yaml {name}")
    assert ran.code == 3
    assert ran.err == (
        "mpq: the analysis of plan.yaml is not in its folder (model.sensitivity.jsonl, sha256 of its first line "
        f"{read_plan(folder / 'plan.yaml').analysis['sha256'][:12]}…): put it back, or name another with --sensitivity FILE\n"
    )
