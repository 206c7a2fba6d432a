"""What makes this a project to join: license, metadata, CI, hooks and templates agree with each other and with the code."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.cli.typed import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
HOOKS: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())


def test_the_license_is_apache_2_everywhere() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert not any("License ::" in each for each in PROJECT["project"]["classifiers"])  # refused next to a license expression


def test_the_package_is_typed_and_ships_the_marker() -> None:
    assert (ROOT / "mpq" / "py.typed").read_text() == ""
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["mpq"]
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_every_kind_of_package_data_exists() -> None:
    data: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]
    empty = [
        (room, pattern)
        for room, patterns in data.items()
        for pattern in patterns
        if not list((ROOT / room.replace(".", "/")).glob(pattern))
    ]
    assert empty == []


def test_ci_runs_everything_on_linux_and_macos_and_light_tests_on_windows() -> None:
    everything, light = WORKFLOW["jobs"]["everything"], WORKFLOW["jobs"]["light"]
    assert everything["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest"]
    assert everything["steps"][-1]["run"] == "bash .ci/run"
    assert light["runs-on"] == "windows-latest"
    assert light["steps"][-1]["run"] == 'python -m pytest "@.ci/light.txt"'


@pytest.mark.parametrize("job", ["everything", "light"])
def test_ci_runs_the_oldest_and_the_newest_python_of_the_metadata(job: str) -> None:
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), flags=re.MULTILINE)
    assert WORKFLOW["jobs"][job]["strategy"]["matrix"]["python"] == [versions[0], versions[-1]]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"


def test_the_light_tests_leave_out_only_what_exists() -> None:
    lines = (ROOT / ".ci" / "light.txt").read_text().splitlines()
    assert all(line.startswith("--ignore=tests/") for line in lines)
    assert [line for line in lines if not (ROOT / line.removeprefix("--ignore=")).exists()] == []


def test_the_hooks_download_nothing_and_are_checks_of_ci() -> None:
    assert [each["repo"] for each in HOOKS["repos"]] == ["local"]
    hooks = HOOKS["repos"][0]["hooks"]
    assert {each["language"] for each in hooks} == {"system"}
    ci = (ROOT / ".ci" / "run").read_text()
    assert [each["entry"] for each in hooks if each["entry"].removesuffix(" --force-exclude") not in ci] == []


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_form_has_a_name_and_asks_something(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert form["name"]
    assert form["description"]
    asked = [each for each in form["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in asked}) == len(asked) > 0
    assert any(each.get("validations", {}).get("required") for each in asked)


def test_the_changelog_begins_with_what_is_unreleased_under_known_heads() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
