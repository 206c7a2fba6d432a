"""`mpq search` under limits of the user's own: a metric, a cost by layer and scheme, memory, candidates by pattern."""

from pathlib import Path

import pytest
import yaml

from mpq.records.sensitivity import read_sensitivity
from tests.cli.typed import done, refused

OWN = """
import torch

def accuracy(model):
    x, y = torch.load("test.pt")
    return (model(x).argmax(-1) == y).float().mean()

def right(model):
    x, y = torch.load("test.pt")
    return model(x).argmax(-1) == y

def broken(model):
    return "much"
"""


def test_the_smallest_plan_within_a_drop_of_the_users_own_metric(folder: Path) -> None:
    (folder / "own_figure.py").write_text(OWN)
    ran = done("search --max-drop 2% --metric own_figure:accuracy --trials 0")
    evidence = yaml.safe_load((folder / "plan.yaml").read_text())["evidence"]
    assert evidence["asked"]["name"] == "drop of own_figure:accuracy"
    assert evidence["asked"]["value"] <= evidence["asked"]["most"]
    assert "own_figure:accuracy of at least 0." in ran.err + ran.out
    plan = (folder / "plan.yaml").read_bytes()
    assert refused("search --max-drop 2% --metric own_figure:broken", 2).startswith("the metric failed with ValueError: ")
    assert refused("search --max-drop 2% --metric own_figure:none", 2).startswith("--metric own_figure:none cannot be imported: ")
    assert (folder / "plan.yaml").read_bytes() == plan


def test_half_of_the_figures_of_a_metric_steer_and_the_others_decide(folder: Path) -> None:
    (folder / "own_figure.py").write_text(OWN)
    ran = done("search --max-drop 2% --metric own_figure:right --trials 0")
    assert "figures: half of them steer, the others decide" in ran.err
    asked = yaml.safe_load((folder / "plan.yaml").read_text())["evidence"]["asked"]
    assert asked["value"] <= asked["most"]
    assert "the metric is one number" in done("search --max-drop 2% --metric own_figure:accuracy --trials 0").err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max-drop 2x --metric a:b", "--max-drop '2x' is not a number or a share: write for example 0.005 or 0.5%"),
        ("--max-drop=-1 --metric a:b", "--max-drop '-1' is negative: write for example 0.005 or 0.5%"),
        ("--max-drop 2%", "--max-drop and --metric belong together: write for example --max-drop 0.5% --metric evaluation:accuracy"),
        ("--max-drop 2% --metric accuracy", "'accuracy' does not name a callable: write --metric package.module:callable"),
        ("--budget 4bits --cost latency.csv", "--cost 'latency.csv' is not FILE=MOST: write for example --cost latency.csv=3.2"),
        ("--budget 4bits --cost a=b", "--cost 'a=b': b is not a number: write for example --cost latency.csv=3.2"),
    ],
)
def test_what_cannot_be_understood_is_refused(folder: Path, line: str, message: str) -> None:
    assert refused(f"search {line}", 2) == message


def test_costs_memory_and_candidates_limit_the_plan_and_are_told(folder: Path) -> None:
    table = read_sensitivity(next(folder.glob("*.sensitivity.jsonl")))
    lines = [f"{layer.name},{s},{layer.weights / s.bits}" for layer in table.layers for s in table.header.candidates[layer.name]]
    (folder / "heat.csv").write_text("layer,scheme,heat\n" + "\n".join(lines) + "\n")
    most = sum(layer.weights for layer in table.layers) / 5
    ran = done(f"search --budget 6bits --trials 2 --cost heat.csv={most} --memory 90% --candidates head=8 --explain head")
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    assert plan["layers"]["head"].startswith("int8")
    costs = plan["evidence"]["costs"]
    assert costs["heat"]["total"] <= most
    assert costs["memory_bytes"]["total"] <= costs["memory_bytes"]["most"]
    assert f"heat: {costs['heat']['total']:.6g} of at most {most:g}" in ran.err
    assert "(chosen)" in ran.out
    assert ["scheme", "bytes", "heat", "memory_bytes"] in [line.split()[:4] for line in ran.out.splitlines()]
    alone = done("explain plan.yaml head --cost heat.csv")
    assert f"heat is {costs['heat']['total']:.6g} of at most {most:g}; net loss prices bytes alone; (over): " in alone.out
    assert "; --cost FILE shows heat of each scheme" in done("explain plan.yaml head").out


def test_a_start_by_another_tool_may_name_fewer_layers_and_is_measured(folder: Path) -> None:
    names = [layer.name for layer in read_sensitivity(folder / "model.sensitivity.jsonl").layers]
    (folder / "peer.csv").write_text("layer,bits\n" + "".join(f"{name},4\n" for name in names[1:]))
    ran = done("search --budget 6bits --trials 2 --from peer.csv")
    assert f"peer.csv does not name {names[0]}: the search chooses there" in ran.err + ran.out
    assert "start" in [row["name"] for row in yaml.safe_load((folder / "plan.yaml").read_text())["evidence"]["finalists"]]
    (folder / "large.csv").write_text("layer,bits\n" + "".join(f"{name},8\n" for name in names))
    over = done("search --budget 4.5bits --trials 2 --from large.csv")
    assert "the plan to start from is over the budget, so the search does not start from it" in over.err + over.out
    table = done("search --budget 6bits --trials 0 --from peer.csv")
    assert "--trials 0 measures no plan, so the search does not start from one" in table.err + table.out


def test_a_plan_of_another_analysis_is_refused_before_the_model_is_loaded(folder: Path) -> None:
    done("search --budget 6bits --trials 0")
    text = (folder / "plan.yaml").read_text()
    names = [layer.name for layer in read_sensitivity(folder / "model.sensitivity.jsonl").layers]
    kept = [line for line in text.splitlines() if not line.startswith(f"  {names[0]}: ")]
    (folder / "other.yaml").write_text("\n".join(kept) + "\n")
    reason = refused("search --budget 6bits --trials 2 --from other.yaml", 2)
    assert reason == f"other.yaml has no layer '{names[0]}': it was made for another analysis"
