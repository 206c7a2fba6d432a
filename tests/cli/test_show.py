import json
from pathlib import Path

import pytest

from mpq.records.plan import read_plan
from tests.cli.typed import done, refused


def test_show_gives_each_layer_a_bar_of_its_bits(folder: Path) -> None:
    lines = done("show plan.yaml").out.splitlines()
    heads = [line for line in lines if line.startswith("layer ")]
    assert heads[0].split() == ["layer", "scheme", "bpw", "bytes", "bits", "per", "weight"]
    for line in lines[lines.index(heads[0]) + 1 :]:
        _, _, bits, _, bar = line.split()
        assert bar == "█" * round(float(bits))


def test_show_says_when_the_layers_were_edited_after_the_search(folder: Path) -> None:
    plan = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(plan.replace("  head: int4", "  head: int8", 1))
    assert "evidence: for other schemes: the layers were edited since" in done("show").out


def test_show_of_an_unmeasured_plan_names_the_predicted_error(folder: Path) -> None:
    done("search --budget 4.5bits --trials 0 --output table.yaml")
    predicted = read_plan("table.yaml").evidence["predicted"]
    assert f"error: kl_divergence {predicted:.4g} predicted, not measured on held-out samples" in done("show table.yaml").out.splitlines()


def test_json_of_a_plan_has_its_layers_and_size(folder: Path) -> None:
    found, plan = json.loads(done("show plan.yaml --json").out), read_plan("plan.yaml")
    assert (found["kind"], found["size"]["file_bytes"], found["evidence_is_current"]) == ("plan", plan.size.file_bytes, True)
    assert [(row["layer"], row["scheme"]) for row in found["layers"]] == [(name, str(scheme)) for name, scheme in plan.layers.items()]
    assert sum(row["bytes"] for row in found["layers"]) == plan.size.layer_bytes


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.yaml", "none.yaml"), (".", "is a folder: name a sensitivity file, a plan or an artifact"), ("test.pt", "test.pt")],
)
def test_what_is_no_file_of_mpq_is_refused(folder: Path, name: str, reason: str) -> None:
    assert reason in refused(f"show {name}", 3)
