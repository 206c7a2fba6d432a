"""The GitHub action and its comment, with stand-ins for `mpq`'s environment and GitHub's API."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpq.distribution import VERSION
from mpq.records.plan import plan_to_yaml
from mpq.search.run import search
from tests.cli.typed import ROOT, environment
from tests.small import random_table

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="the action runs on bash")
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
TABLE = random_table(2)
# what `gh api` is asked for goes to gh.log; it knows the comments whose numbers are in gh.ids, and none may be written where gh.deny is
GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" | sed 's/@.*//' >> gh.log
for word in "$@"; do [[ "$word" == body=@* ]] && cp "${word#body=@}" gh.body; done
[ -e gh.deny ] && exit 1
[[ "$*" == *--jq* ]] && cat gh.ids
exit 0
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a plan, and with stand-ins for gh and mpq in the folder `bin`."""
    monkeypatch.chdir(tmp_path)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "gh").write_text(GH)
    (bin_folder / "mpq").write_text(f'#!/usr/bin/env bash\nexec {sys.executable} -m mpq "$@"\n')
    for path in bin_folder.iterdir():
        path.chmod(0o755)
    (tmp_path / "gh.ids").touch()
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(search(TABLE, "6bits").plan))
    git("init", "--quiet")
    git("add", "plan.yaml")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "plan")
    return tmp_path


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def comment(*plans: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    more = environment(PATH=path, GITHUB_REPOSITORY="owner/name", PULL_REQUEST="7")
    words = [str(ROOT / ".ci" / "comment"), "mpq", "HEAD", *plans]
    return subprocess.run(words, env=more, capture_output=True, text=True, check=True)


def asked() -> list[str]:
    return [line for line in Path("gh.log").read_text().splitlines() if "--jq" not in line]


def test_a_changed_plan_becomes_a_comment(repository: Path) -> None:
    Path("plan.yaml").write_text(plan_to_yaml(search(TABLE, "5bits").plan))
    ran = comment("plan.yaml")
    assert asked() == ["api --method POST repos/owner/name/issues/7/comments --field body="]
    first, second = Path("gh.body").read_text().splitlines()[:2]
    assert first == "<!-- mpq diff -->"
    assert second.startswith("### `plan.yaml`: ")
    assert "layers differ" in ran.stdout


def test_the_next_run_updates_the_comment(repository: Path) -> None:
    Path("gh.ids").write_text("41\n42\n")
    comment("plan.yaml")
    assert asked() == ["api --method PATCH repos/owner/name/issues/comments/41 --field body="]
    assert Path("gh.body").read_text() == "<!-- mpq diff -->\n`plan.yaml` has not changed.\n\n"


def test_new_and_removed_plans_are_named_and_others_are_no_fault(repository: Path) -> None:
    Path("plan.yaml").rename("new.yaml")
    comment("plan.yaml", "new.yaml", "never.yaml")
    size = search(TABLE, "6bits").plan.size
    lines = Path("gh.body").read_text().split("\n\n")
    assert lines[0] == "<!-- mpq diff -->\n`plan.yaml` has been removed."
    assert lines[1].startswith(f"`new.yaml` is new; size: {size.effective_bits:.4g} bits per weight over the layers")
    assert lines[2:] == [""]


def test_without_any_plan_nothing_is_asked(repository: Path) -> None:
    assert comment("never.yaml").stdout == "no plan: never.yaml\n"
    assert not Path("gh.log").exists()


def test_a_comment_that_may_not_be_written_is_a_warning(repository: Path) -> None:
    Path("gh.deny").touch()
    assert comment("plan.yaml").stdout.splitlines()[-1].startswith("::warning title=mpq diff::the comment could not be written: ")


def test_the_action_has_a_face_and_installs_the_list_of_the_gate() -> None:
    assert set(ACTION["branding"]) == {"icon", "color"}
    lines = [step.get("run", "") for step in ACTION["runs"]["steps"]]
    install = next(line for line in lines if "--no-deps" in line)
    assert '--no-deps "$GITHUB_ACTION_PATH"' in install
    assert '--requirement "$GITHUB_ACTION_PATH/requirements-check.txt"' in install
    assert not any("${{ inputs" in line or "${{ github" in line for line in lines)  # texts of others come through the environment


def test_the_pages_pin_the_action_to_the_tag_of_this_version() -> None:
    pages = [(ROOT / name).read_text() for name in ("README.md", "docs/cookbook.md", "docs/session.md")]
    uses = [line.strip() for page in pages for line in page.splitlines() if "OWNER/mpq@" in line]
    assert len(uses) >= 1
    assert [line for line in uses if f"OWNER/mpq@v{VERSION}" not in line] == []
