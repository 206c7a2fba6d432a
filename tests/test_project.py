"""What makes this a project to join: license, metadata, CI, hooks and templates agree with each other and with the code."""

import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

import mpq
from mpq.distribution import DISTRIBUTION, HEAVY, VERSION
from tests.cli.typed import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
HOOKS: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
FROM_GIT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive has no list of files")
OTHER = re.compile(r"(?<![\w./-])mpq\[|(?:install|--from|pipx run|uvx|--with)\s+['\"]?mpq(?![-\w./])")


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


def test_the_distribution_has_a_name_of_its_own_and_one_version() -> None:
    assert PROJECT["project"]["name"] == DISTRIBUTION
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mpq.distribution.VERSION"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert mpq.__version__ == VERSION


@FROM_GIT
def test_nothing_tells_to_install_the_other_program_of_that_name() -> None:
    """In code, tests, pages and workflows, only this distribution is installed, by that name or from this folder."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in listed if name.endswith((".py", ".md", ".yml", ".yaml", ".toml", ".txt", "/run"))]
    found = {name: OTHER.findall((ROOT / name).read_text(encoding="utf-8")) for name in files if name != "tests/test_project.py"}
    assert len(files) > 300
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install 'mpq[onnx]'", True),
        ("pip install mpq", True),
        ("needs mpq[png]", True),
        ("uvx mpq demo", True),
        ("uvx --from mpq-torch mpq demo", False),
        ("pip install 'mpq-torch[onnx]'", False),
        ("pipx install mpq-torch", False),
    ],
)
def test_what_installs_the_other_program_is_found(text: str, wrong: bool) -> None:
    assert bool(OTHER.search(text)) is wrong


@pytest.mark.parametrize("extra", sorted(PROJECT["project"]["optional-dependencies"]))
def test_an_extra_names_this_distribution_alone(extra: str) -> None:
    named = [each for each in PROJECT["project"]["optional-dependencies"][extra] if each.startswith("mpq")]
    assert [each for each in named if not each.startswith(f"{DISTRIBUTION}[")] == []
    known = set(PROJECT["project"]["optional-dependencies"])
    assert {part for each in named for part in each.removeprefix(f"{DISTRIBUTION}[").rstrip("]").split(",")} <= known


def test_every_remedy_names_an_extra_that_exists() -> None:
    calls = [
        call
        for path in (ROOT / "mpq").rglob("*.py")
        for call in re.findall(r"(?:install\(|requirement\(|extra=)['\"]([\w-]+)['\"]", path.read_text())
    ]
    assert len(calls) > 10
    assert set(calls) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_gate_needs_all_that_is_required_but_what_is_heavy() -> None:
    light = [line for line in (ROOT / "requirements-check.txt").read_text().splitlines() if line and not line.startswith("#")]
    required = PROJECT["project"]["dependencies"]
    assert sorted(light) == sorted(each for each in required if re.split("[<>=]", each)[0] not in HEAVY)
    assert set(HEAVY) <= {re.split("[<>=]", each)[0] for each in required}


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


def test_ci_installs_the_archives_and_begins_with_the_least_torch() -> None:
    assert WORKFLOW["jobs"]["package"]["steps"][-1]["run"] == "bash .ci/package"
    (least,) = [each.removeprefix("torch>=") for each in PROJECT["project"]["dependencies"] if each.startswith("torch>=")]
    versions = WORKFLOW["jobs"]["torch"]["strategy"]["matrix"]["torch"]
    assert versions[0] == f"{least}.0"
    assert versions[-1] == "newest"


@FROM_GIT
@pytest.mark.parametrize("name", ["run", "package", "torch", "torch-tests", "comment"])
def test_scripts_of_ci_are_bash_that_stops_at_errors_and_may_be_run(name: str) -> None:
    path = ROOT / ".ci" / name
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in path.read_text()
    listed = subprocess.run(["git", "ls-files", "--stage", f".ci/{name}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.startswith("100755")


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
