"""`mpq search` under limits of the user's own: a metric, a cost by layer and scheme, memory, candidates by pattern."""

import json
import re
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
    assert re.search(r"; half of its \d+ values guide the search, the others decide", ran.err)
    asked = yaml.safe_load((folder / "plan.yaml").read_text())["evidence"]["asked"]
    assert asked["value"] <= asked["most"]
    assert (
        "; it returns one number, which guides the search and decides"
        in done("search --max-drop 2% --metric own_figure:accuracy --trials 0").err
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max-drop 2x --metric a:b", "--max-drop '2x' is not a number or a share: write for example 0.005 or 0.5%"),
        ("--max-drop=-1 --metric a:b", "--max-drop '-1' is negative: write for example 0.005 or 0.5%"),
        ("--max-drop 2%", "give --max-drop and --metric together: write for example --max-drop 0.5% --metric evaluation:accuracy"),
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
    assert f"peer.csv does not name {names[0]}: the search chooses them" in ran.err + ran.out
    assert "starting plan" in [row["name"] for row in yaml.safe_load((folder / "plan.yaml").read_text())["evidence"]["finalists"]]
    (folder / "large.csv").write_text("layer,bits\n" + "".join(f"{name},8\n" for name in names))
    over = done("search --budget 4.5bits --trials 2 --from large.csv")
    assert "the plan to start from exceeds the budget, so the search does not use it" in over.err + over.out
    table = done("search --budget 6bits --trials 0 --from peer.csv")
    assert "--trials 0 measures no plan, so --from has no effect" in table.err + table.out


def test_a_plan_of_another_analysis_is_refused_before_the_model_is_loaded(folder: Path) -> None:
    done("search --budget 6bits --trials 0")
    text = (folder / "plan.yaml").read_text()
    names = [layer.name for layer in read_sensitivity(folder / "model.sensitivity.jsonl").layers]
    kept = [line for line in text.splitlines() if not line.startswith(f"  {names[0]}: ")]
    (folder / "other.yaml").write_text("\n".join(kept) + "\n")
    reason = refused("search --budget 6bits --trials 2 --from other.yaml", 2)
    assert reason == f"other.yaml has no layer '{names[0]}': it was made for another analysis"


def test_a_budget_and_limits_of_quality_hold_together(folder: Path) -> None:
    (folder / "own_figure.py").write_text(OWN)
    own = "--max-drop 50% --metric own_figure:accuracy"
    ran = done(f"search --budget 6bits --trials 2 --max-error 1 {own} --pin '*=int4'")
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    assert plan["budget"]["limit"] == "6bits"
    assert set(plan["layers"].values()) == {"int4"}
    assert [row["name"] for row in plan["evidence"]["asked"]] == ["held-out error", "drop of own_figure:accuracy"]
    assert "the best plan for 6bits (layers) with kl_divergence of at most 1 on held-out samples and own_figure:accuracy" in ran.err
    assert "held-out error: " in ran.err
    reason = refused("search --budget 6bits --trials 2 --max-error 1e-12", 2)
    assert reason.startswith("no plan was found with a budget of 6bits (layers) and a held-out error of at most 1e-12: the best one has ")


def test_a_uniform_plan_on_request_is_measured_with_any_quantizer(folder: Path) -> None:
    ran = done("search --uniform int4-g32 --quantizer rtn -o uniform.yaml")
    plan = yaml.safe_load((folder / "uniform.yaml").read_text())
    assert (plan["quantizer"], plan["evidence"]["predicted"]) == ("rtn", plan["evidence"].get("predicted"))
    assert plan["evidence"]["measured"]["held_out"] > 0
    assert "on held-out samples, measured on the model" in ran.err
    for name, scheme in plan["layers"].items():
        assert scheme == "int4-g32" or re.search(rf"^{scheme} instead of int4-g32, .*: .*\b{re.escape(name)}\b", ran.err, re.MULTILINE)
    before = (folder / "uniform.yaml").read_bytes()
    assert refused("search --uniform int4-g32 --quantizer none -o uniform.yaml", 2).startswith("'none' is not a quantizer: use one of ")
    assert refused("search --uniform int4-g32 --budget 4bits", 2) == "--uniform gives every layer one scheme: leave out --budget"
    assert refused("search --budget 4bits --quantizer rtn", 2).startswith("--quantizer needs --uniform: ")
    assert (folder / "uniform.yaml").read_bytes() == before
    done("apply uniform.yaml -o uniform.mpq.safetensors")
    assert (folder / "uniform.mpq.safetensors").stat().st_size == plan["size"]["file_bytes"]


def test_a_plan_over_its_budget_is_refused_before_the_model_is_loaded(folder: Path) -> None:
    text = (folder / "plan.yaml").read_text()
    (folder / "over.yaml").write_text(text.replace("limit: 4.5bits", "limit: 2bits"))
    (folder / "model.pt2").unlink()
    assert "more than its budget 2bits (layers)" in refused("apply over.yaml", 3)
    assert "more than its budget 2bits (layers)" in refused("apply over.yaml --shards parts", 3)


def test_an_artifact_is_checked_against_the_budget_of_its_plan(folder: Path) -> None:
    assert "the budget of 4.5bits" in done("check model.mpq.safetensors").out
    assert "from plan.yaml" in done("check model.mpq.safetensors").out
    text = (folder / "plan.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("limit: 4.5bits", "limit: 9bits"))
    assert refused("check model.mpq.safetensors", 2).endswith("(other.yaml 9bits (layers), plan.yaml 4.5bits (layers)): give --budget")
    (folder / "plan.yaml").unlink()
    assert "from other.yaml" in done("check model.mpq.safetensors").out
    (folder / "other.yaml").unlink()
    assert refused("check model.mpq.safetensors", 2) == (
        "model.mpq.safetensors is an artifact, which has no budget, and no plan next to it has its layers: give --budget, or check the plan"
    )


def test_a_limit_on_samples_on_which_the_reference_is_nearly_certain_says_so(folder: Path) -> None:
    path = folder / "model.sensitivity.jsonl"
    first, _, others = path.read_text().partition("\n")
    header = json.loads(first)
    header["data"]["caution"] = "the reference is nearly certain on these samples"
    path.write_text(f"{json.dumps(header)}\n{others}")
    rests = "warning: --max-error rests on the held-out samples of the analysis, and the reference is nearly certain on these samples"
    assert rests in done("search --budget 6bits --max-error 1 --trials 1").err
    assert "warning: the reference is nearly certain on these samples" in done("search --budget 6bits --trials 1").err


def test_a_search_says_that_its_calibration_samples_are_easier_and_the_plan_keeps_it(folder: Path) -> None:
    path = folder / "model.sensitivity.jsonl"
    first, _, others = path.read_text().partition("\n")
    header = json.loads(first)
    header["data"]["shift"] = "the calibration samples are easier"
    path.write_text(f"{json.dumps(header)}\n{others}")
    assert "warning: the calibration samples are easier" in done("search --budget 6bits --trials 0").err
    assert yaml.safe_load((folder / "plan.yaml").read_text())["data"]["shift"] == "the calibration samples are easier"
