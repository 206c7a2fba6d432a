import json
from pathlib import Path

import pytest

from mpq.schemas import schema
from tests.cli.typed import done, typed


def test_a_schema_is_printed() -> None:
    assert json.loads(done("schema plan").out) == schema("plan")


def test_a_schema_is_written_with_the_line_that_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "start a YAML file with: # yaml-language-server: $schema=c.json" in done("schema config -o c.json").err
    assert json.loads((tmp_path / "c.json").read_text()) == schema("config")


def test_other_files_have_no_schema() -> None:
    ran = typed("schema artifact")
    assert (ran.code, ran.err) == (2, "mpq: 'artifact' has no schema: use plan, config, budgets\n")
