import json
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.rate_limits import LayerLimit, limits_beside, read_limits, total_limit


def test_the_total_weighs_layers_by_their_weights() -> None:
    found = total_limit([LayerLimit("a", 100, 4.0, 3.5), LayerLimit("b", 300, 6.0, 5.0), LayerLimit("c", 9, 8.0, None, "a lookup table")])
    assert found == LayerLimit("total", 400, 5.5, 4.625)
    assert found.gap == 0.875


def test_without_a_limit_there_is_no_total() -> None:
    missing = LayerLimit("c", 9, 8.0, None, "a lookup table")
    assert missing.gap is None
    assert total_limit([missing]) is None


def test_what_was_printed_is_read_again(tmp_path: Path) -> None:
    rows = [{"layer": "a", "limit_bits": 3.5, "gap_bits": 0.5}, {"layer": "c", "limit_bits": None, "reason": "a lookup table"}]
    (tmp_path / "a.json").write_text(json.dumps({"file": "plan.yaml", "assignment": "abc", "layers": rows}))
    assert read_limits(tmp_path / "a.json") == ("abc", {"a": 3.5})
    (tmp_path / "a.json").rename(tmp_path / "a.limit.json")
    assert limits_beside(tmp_path, "abc") == {"a": 3.5}
    assert limits_beside(tmp_path, "other") is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"assignment": "a", "layers": [{"layer": "a", "limit_bits": -1}]}'])
def test_what_holds_no_limits_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FormatError, match=r"a.json"):
        read_limits(tmp_path / "a.json")
