import json
import math
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.evaluation import Evaluation, Figure
from mpq.records.evaluation_file import evaluation_beside, read_evaluation

FOUND = Evaluation((Figure("accuracy", 0.9, 0.95), Figure("kl_divergence", 0.01, stderr=0.001)), 64, "test.pt", "a caution", ("a note",))


def written(path: Path, assignment: str = "abc") -> Path:
    path.write_text(json.dumps({"artifact": "m", "assignment": assignment, **FOUND.to_dict()}))
    return path


def test_what_was_printed_is_read_again(tmp_path: Path) -> None:
    assignment, found = read_evaluation(written(tmp_path / "a.evaluation.json"))
    assert (assignment, found.samples, found.source, found.caution, found.notes) == ("abc", 64, "test.pt", "a caution", ("a note",))
    assert (found["accuracy"].quantized, found["accuracy"].reference) == (0.9, 0.95)
    assert math.isnan(found["accuracy"].stderr)
    assert found["kl_divergence"].stderr == 0.001


@pytest.mark.parametrize("text", ["", "{}", '{"samples": 1}', "[1]"])
def test_what_is_no_evaluation_is_refused_and_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.evaluation.json").write_text(text)
    with pytest.raises(FormatError, match=r"a.evaluation.json"):
        read_evaluation(tmp_path / "a.evaluation.json")
    assert evaluation_beside(tmp_path, "abc") is None


def test_only_an_evaluation_of_the_same_schemes_is_taken(tmp_path: Path) -> None:
    written(tmp_path / "a.evaluation.json", "other")
    assert evaluation_beside(tmp_path, "abc") is None
    written(tmp_path / "b.evaluation.json")
    found = evaluation_beside(tmp_path, "abc")
    assert found is not None
    assert found.samples == 64
