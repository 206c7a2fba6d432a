"""Which analysis a plan is shown with, when a folder holds several."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mpq.records.plan import read_plan
from mpq.records.sensitivity import first_line_sha256, read_sensitivity
from mpq.writing.checksums import sealed
from tests.cli.typed import done, refused, typed

NAMED = "model.sensitivity.jsonl"


def changed(file: Path, name: str, **settings: str) -> Path:
    """A copy of an analysis whose header has other settings."""
    first, *lines = file.read_text().splitlines()
    header = json.loads(first)
    header["settings"] |= settings
    path = file.with_name(name)
    header.pop("crc", None)
    path.write_text("\n".join([sealed(header).decode().rstrip(), *lines]) + "\n")
    return path


def without_name(folder: Path) -> None:
    """`plan.yaml` as an older mpq wrote it."""
    data = yaml.safe_load((folder / "plan.yaml").read_text())
    del data["analysis"]
    (folder / "plan.yaml").write_text(yaml.safe_dump({**data, "mpq_plan": 1}, sort_keys=False))


def layer(folder: Path) -> str:
    return next(iter(read_plan(folder / "plan.yaml").layers))


def test_a_plan_names_the_first_line_of_its_analysis(folder: Path) -> None:
    plan = read_plan(folder / "plan.yaml")
    assert plan.analysis == {"path": NAMED, "sha256": first_line_sha256(folder / NAMED)}
    assert read_sensitivity(folder / NAMED).sha256 == plan.analysis["sha256"]


def test_of_several_analyses_the_named_one_is_shown(folder: Path) -> None:
    changed(folder / NAMED, "a.sensitivity.jsonl", metric="relative_mse")  # before it in the order of names
    done("report plan.yaml")
    assert "relative MSE" not in re.sub(r"<script.*?</script>", "", (folder / "plan.report.html").read_text(), flags=re.DOTALL)
    assert "kl_divergence" in done(f"explain plan.yaml {layer(folder)}").out


@pytest.mark.parametrize("command", ["report plan.yaml", "explain plan.yaml LAYER", "diff plan.yaml plan.yaml"])
def test_a_renamed_analysis_is_found_by_its_hash(folder: Path, command: str) -> None:
    shutil.copy(folder / NAMED, folder / "kept.jsonl")
    changed(folder / NAMED, NAMED, metric="relative_mse")
    (folder / "kept.jsonl").rename(folder / "zz.sensitivity.jsonl")
    assert "sha256" not in done(command.replace("LAYER", layer(folder))).err


def test_a_plan_in_a_folder_below_is_shown_with_the_analysis_of_the_working_directory(folder: Path) -> None:
    (folder / "plans").mkdir()
    shutil.copy(folder / "plan.yaml", folder / "plans")
    done("report plans/plan.yaml")
    assert 'id="frontier"' in (folder / "plans" / "plan.report.html").read_text()


def test_a_missing_analysis_is_named_although_another_one_fits(folder: Path) -> None:
    sha256 = first_line_sha256(folder / NAMED)[:12]
    changed(folder / NAMED, NAMED, method="fisher")
    named = f"the analysis of plan.yaml is not in its folder ({NAMED}, sha256 of its first line {sha256}…)"
    remedy = "put it back, or name another with --sensitivity FILE"
    assert refused(f"explain plan.yaml {layer(folder)}", 3) == f"{named}: {remedy}"
    assert named in done("report plan.yaml").err
    assert named in done("diff plan.yaml plan.yaml").err
    assert 'id="frontier"' not in (folder / "plan.report.html").read_text()


def test_an_older_plan_takes_the_only_analysis_that_fits(folder: Path) -> None:
    without_name(folder)
    for name, settings in (("a", {"metric": "relative_mse"}), ("b", {"quantizer": "hqq"})):
        changed(folder / NAMED, f"{name}.sensitivity.jsonl", **settings)
    assert "kl_divergence" in done(f"explain plan.yaml {layer(folder)}").out


@pytest.mark.parametrize(
    "command", ["report plan.yaml", "explain plan.yaml LAYER", "diff plan.yaml plan.yaml", "report model.mpq.safetensors"]
)
def test_where_several_fit_none_is_guessed(folder: Path, command: str) -> None:
    without_name(folder)
    changed(folder / NAMED, "a.sensitivity.jsonl", method="fisher")
    file = command.split()[1]
    assert refused(command.replace("LAYER", layer(folder)), 3) == (
        f"2 sensitivity files fit {file} (a.sensitivity.jsonl, {NAMED}): choose one with --sensitivity FILE"
    )


def test_another_analysis_by_choice_is_told_and_one_in_another_metric_refused(folder: Path) -> None:
    changed(folder / NAMED, "other.sensitivity.jsonl", method="fisher")
    ran = done("report plan.yaml --sensitivity other.sensitivity.jsonl")
    assert f"other.sensitivity.jsonl is not the analysis that plan.yaml names ({NAMED})" in ran.err
    changed(folder / NAMED, "mse.sensitivity.jsonl", metric="relative_mse")
    assert refused("report plan.yaml --sensitivity mse.sensitivity.jsonl", 3) == (
        "mse.sensitivity.jsonl measures relative_mse, and plan.yaml was searched with kl_divergence: name its analysis"
    )


def test_a_damaged_analysis_beside_it_is_no_hindrance(folder: Path) -> None:
    (folder / "a.sensitivity.jsonl").write_text("{not json\n")
    (folder / "b.sensitivity.jsonl").write_text("")
    done("report plan.yaml")
    without_name(folder)
    assert "skipped a.sensitivity.jsonl" in typed("report plan.yaml").err
