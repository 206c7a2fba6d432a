"""The README's commands and Python are run, in its order and in one folder, and print what it shows but for the figures."""

import re
from pathlib import Path

import pytest

from tests.cli.typed import ROOT, done, typed

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def plain(line: str) -> str:
    """A line without its figures, schemes and stages, which another machine may give otherwise."""
    for pattern, word in ((r"\b(exact|knobs|swaps|model)\b", "stage"), (r"\bint\d(-g\d+)?", "scheme"), (r"█+", "█")):
        line = re.sub(pattern, word, line)
    return " ".join(re.sub(r"[\d.,±%]+(?:e-\d+)?", "#", line).split())


def test_the_two_commands_are_those_of_the_ci() -> None:
    install, test = next(text for language, text in BLOCKS if language == "bash").splitlines()
    ci = (ROOT / ".ci" / "run").read_text()
    assert "-c constraints.txt -e '.[dev]'" in install
    assert "--constraint constraints.txt --editable '.[dev]'" in ci
    assert test.removeprefix(".venv/bin/") in ci.splitlines()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, text in BLOCKS:
        if language == "console":
            for command, *shown in [part.splitlines() for part in re.split(r"^\$ mpq ", text, flags=re.MULTILINE)[1:]]:
                failing = any(line.startswith("FAIL") for line in shown)
                ran = typed(command) if failing else done(command)
                assert ran.code == int(failing)
                printed = [plain(line) for line in (ran.out + ran.err).splitlines()]
                missing = [line for line in shown if not any(plain(line) in one for one in printed)]
                assert missing == [], (command, ran.out + ran.err)
        elif language == "python":
            exec(compile(text, "README.md", "exec"), names)
    assert "accuracy" in capsys.readouterr().out


def test_commands_in_the_text_exist() -> None:
    for command in set(re.findall(r"`mpq ([a-z]+)", README)):
        assert f"Example: mpq {command}" in done(f"{command} --help").out
