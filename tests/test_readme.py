"""The README's commands and Python are run, in its order and in one folder, and print what it shows but for the figures."""

import re
from pathlib import Path

import pytest

from mpq.demo import write_demo
from tests import documents
from tests.cli.typed import ROOT, done

README = ROOT / "README.md"


def test_the_two_commands_are_those_of_the_ci() -> None:
    install, test = next(text for language, text in documents.blocks(README) if language == "bash").splitlines()
    ci = (ROOT / ".ci" / "run").read_text()
    assert "-c constraints.txt -e '.[dev]'" in install
    assert "--constraint constraints.txt --editable '.[dev]'" in ci
    assert test.removeprefix(".venv/bin/") in ci.splitlines()


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo("digits", tmp_path)  # the reader's own files, for the four lines at the top
    documents.run(README)
    assert "accuracy" in capsys.readouterr().out


def test_commands_in_the_text_exist() -> None:
    for command in set(re.findall(r"`mpq ([a-z]+)", README.read_text())):
        assert f"Example: mpq {command}" in done(f"{command} --help").out
