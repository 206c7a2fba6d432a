import json
from importlib import import_module
from pathlib import Path

import pytest

from mpq.records.plan import read_plan
from mpq.records.rate_limits import LayerLimit
from tests.cli.typed import done, refused


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


def test_layers_without_a_limit_are_named_by_reason_and_many_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*(f"a{at}" for at in range(7)), "b"]
    limits = [LayerLimit(name, 4, 4.5, None, "a lookup table" if name != "b" else "not quantized") for name in names]
    monkeypatch.setattr(import_module("mpq.apply.rate_limits"), "rate_limits", lambda *_, **__: limits)
    assert done("show plan.yaml --limit").out.splitlines()[-3:] == [
        "no limit for a0, a1, a2, a3, a4 and 2 more: a lookup table",
        "no limit for b: not quantized",
        "limit: if the weights were normally distributed, no code could reach the layer's output error on the calibration data with fewer "
        "bits per weight",
    ]


def test_layers_below_the_limit_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [LayerLimit("a", 4, 4.5, 3.5), LayerLimit("b", 4, 1.0, 2.5)]
    monkeypatch.setattr(import_module("mpq.apply.rate_limits"), "rate_limits", lambda *_, **__: limits)
    assert done("show plan.yaml --limit").out.splitlines()[-1] == "below the limit, as weights that are not normally distributed can be: b"


def test_json_of_the_limit_names_the_schemes_by_their_digest(folder: Path) -> None:
    found, plan = json.loads(done("show plan.yaml --limit --json").out), read_plan("plan.yaml")
    assert found["assignment"] == plan.assignment
    assert [row["layer"] for row in found["layers"]] == list(plan.layers)
    known = [row for row in found["layers"] if "reason" not in row]
    assert known
    assert all(row["gap_bits"] == row["effective_bits"] - row["limit_bits"] for row in known)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("model.sensitivity.jsonl --limit", "model.sensitivity.jsonl is not a plan, which --limit needs: run `mpq search`"),
        ("plan.yaml --limit --kernels", "give one of them"),
        ("plan.yaml --limit --dtype bf16", "--dtype only affects --kernels: add --kernels, or leave --dtype out"),
        ("plan.yaml --cache off", "--cache only affects --limit: add --limit, or leave --cache out"),
    ],
)
def test_a_limit_that_cannot_be_shown_is_refused(folder: Path, options: str, reason: str) -> None:
    assert reason in refused(f"show {options}", 2)


def test_the_limit_says_that_the_data_is_missing(folder: Path) -> None:
    (folder / "calibration.pt").unlink()
    assert "calibration.pt, named in plan.yaml, is missing: put it back" in refused("show plan.yaml --limit", 3)
