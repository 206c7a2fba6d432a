import json
import subprocess
from pathlib import Path

from tests.cli.typed import done, typed


def edited(folder: Path) -> None:
    """plan.yaml with the first of its layers that is not at fp16 there, as new.yaml."""
    lines = (folder / "plan.yaml").read_text().splitlines()
    start = lines.index("layers:") + 1
    first = next(number for number, line in enumerate(lines[start:], start) if not line.endswith(": fp16"))
    lines[first] = f"{lines[first].split(':')[0]}: fp16"
    (folder / "new.yaml").write_text("\n".join(lines) + "\n")


def test_a_plan_does_not_differ_from_itself(folder: Path) -> None:
    assert "no layer differs" in done("diff plan.yaml plan.yaml").out


def test_a_changed_layer_is_named_with_its_bytes(folder: Path) -> None:
    edited(folder)
    found = json.loads(done("diff plan.yaml new.yaml --json").out)
    (change,) = found["layers"]
    assert change["after"] == "fp16"
    assert change["bytes"] == found["figures"]["bytes of the layers"]["difference"] > 0
    assert change["error"] < 0


def test_markdown_is_a_heading_and_two_tables(folder: Path) -> None:
    edited(folder)
    lines = done("diff plan.yaml new.yaml --markdown").out.splitlines()
    assert lines[0].startswith("### `new.yaml`: ")
    assert "|---|---:|---:|---:|" in lines
    assert "|---|---|---|---:|---:|" in lines
    assert lines[-1] == "<sub>`mpq diff plan.yaml new.yaml`</sub>"


def test_an_older_plan_is_read_from_git(folder: Path) -> None:
    edited(folder)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "plan.yaml"], [*author, "commit", "-qm", "Add a plan"]):
        subprocess.run(["git", *command], check=True, cwd=folder)
    (folder / "new.yaml").replace(folder / "plan.yaml")
    assert "1 of " in done("diff HEAD:plan.yaml").out
    ran = typed("diff HEAD~7:plan.yaml")
    assert ran.code == 2
    assert ran.err.startswith("mpq: cannot read HEAD~7:plan.yaml: ")


def test_an_option_is_no_revision(folder: Path) -> None:
    ran = typed("diff -- --output=x:plan.yaml")
    assert (ran.code, ran.err) == (2, "mpq: '--output=x:plan.yaml' is not REVISION:PATH: write for example HEAD~1:plan.yaml\n")


def test_markdown_and_json_exclude_each_other(folder: Path) -> None:
    ran = typed("diff plan.yaml plan.yaml --markdown --json")
    assert (ran.code, ran.err) == (2, "mpq: give either --markdown or --json, not both\n")
