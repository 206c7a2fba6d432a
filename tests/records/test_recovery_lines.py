import json
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.records.recovery_lines import Evaluated, beside_artifact, read_recovery_lines, recovery_lines_of

FIRST = {"step": 0, "of": 20, "loss": None, "aside": 0.4, "rate": 3.0, "code_rate": 1.0, "event": "rates tried: 3 gives 0.2"}
SECOND = FIRST | {"step": 10, "loss": 0.3, "aside": 0.2, "event": ""}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_each_line_is_an_evaluation(tmp_path: Path) -> None:
    found = read_recovery_lines(written(tmp_path / "a.recover.jsonl", FIRST, SECOND))
    assert found == (
        Evaluated(0, 20, None, 0.4, 3.0, 1.0, "rates tried: 3 gives 0.2"),
        Evaluated(10, 20, 0.3, 0.2, 3.0, 1.0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "line 1"),
        (json.dumps(FIRST) + "\n" + json.dumps(SECOND | {"step": -1}) + "\n", r"line 2: step is -1"),
        (json.dumps({"step": 1}) + "\n", "line 1: it lacks the key 'of'"),
        (json.dumps(FIRST | {"aside": float("nan")}) + "\n", "line 1"),
        (json.dumps(FIRST | {"aside": 1e308}) + "\n", "line 1: aside is 1e\\+308"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.recover.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_recovery_lines(path)


def test_the_journal_is_found_beside_the_artifact_that_a_plan_notes(tmp_path: Path) -> None:
    written(tmp_path / "net.recovered.recover.jsonl", FIRST)
    assert beside_artifact(tmp_path / "net.recovered.mpq.safetensors", ".recover.jsonl") == tmp_path / "net.recovered.recover.jsonl"
    assert [line.step for line in recovery_lines_of(tmp_path, {"artifact": "net.recovered.mpq.safetensors"})] == [0]
    assert recovery_lines_of(tmp_path / "..", {"artifact": f"{tmp_path.name}/net.recovered.mpq.safetensors"}) == ()
    assert recovery_lines_of(tmp_path, {"artifact": "other.mpq.safetensors"}) == ()
    assert recovery_lines_of(tmp_path, {"artifact": 3}) == recovery_lines_of(tmp_path, None) == recovery_lines_of(tmp_path, [1]) == ()
