import json
from pathlib import Path

import pytest

from mpq.records.plan import assignment_of, read_plan
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


def test_the_limit_of_a_plan_is_below_its_bits(folder: Path) -> None:
    lines = done("show plan.yaml --limit").out.splitlines()
    assert lines[0].split() == ["layer", "scheme", "bpw", "limit", "gap"]
    plan = read_plan("plan.yaml")
    rows = [line.split() for line in lines[1 : 2 + len(plan.layers)]]
    assert [row[0] for row in rows] == [*plan.layers, "total"]
    known = [(float(bits), float(least), float(gap)) for *_, bits, least, gap in rows if least != "-"]
    assert len(known) > 1
    for bits, least, gap in known:
        assert 0 < least < bits
        assert gap == pytest.approx(bits - least, abs=0.0011)


def test_json_of_the_limit_names_the_schemes_by_their_digest(folder: Path) -> None:
    found, plan = json.loads(done("show plan.yaml --limit --json").out), read_plan("plan.yaml")
    assert found["assignment"] == assignment_of(plan.layers, plan.activations)
    assert [row["layer"] for row in found["layers"]] == list(plan.layers)
    known = [row for row in found["layers"] if "reason" not in row]
    assert known
    assert all(row["gap_bits"] == row["effective_bits"] - row["limit_bits"] for row in known)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("model.sensitivity.jsonl --limit", "--limit needs a plan: run `mpq search`"),
        ("plan.yaml --limit --kernels", "give one of them"),
        ("plan.yaml --cache off", "--cache only affects --limit: add --limit, or leave --cache out"),
    ],
)
def test_a_limit_that_cannot_be_shown_is_refused(folder: Path, options: str, reason: str) -> None:
    assert reason in refused(f"show {options}", 2)


def test_the_limit_says_that_the_data_is_missing(folder: Path) -> None:
    (folder / "calibration.pt").unlink()
    assert "calibration.pt, named in plan.yaml, is missing: put it back" in refused("show plan.yaml --limit", 3)
