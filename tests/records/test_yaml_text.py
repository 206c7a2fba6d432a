import pytest
import yaml

from mpq.records.yaml_text import yaml_key, yaml_text


def test_what_is_there_twice_is_written_twice_and_keys_keep_their_order() -> None:
    same = [1, 2]
    assert yaml_text({"b": same, "a": same}) == "b:\n- 1\n- 2\na:\n- 1\n- 2\n"


@pytest.mark.parametrize("text", ["conv1", "a: b", "null", "1", "line\nbreak", "x" * 300, "é#"])
def test_a_key_is_one_line_that_reads_back(text: str) -> None:
    assert "\n" not in yaml_key(text)
    assert yaml.safe_load(f"{yaml_key(text)}: int4") == {text: "int4"}
