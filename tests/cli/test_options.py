from pathlib import Path
from typing import Any

import pytest
import torch

from mpq.cli.options import default_of, dtype_of, merged
from mpq.config import AnalysisSettings, SearchSettings
from mpq.errors import ConfigError, UsageError


@pytest.mark.parametrize(("name", "expected"), [(None, None), ("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_dtype_is_named_as_a_format_is(name: str | None, expected: torch.dtype | None) -> None:
    assert dtype_of(name) is expected


@pytest.mark.parametrize("name", ["float16", "int8", "FP16"])
def test_other_names_are_no_dtype(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^--dtype {name} is not a dtype that a model computes in: write "):
        dtype_of(name)


def test_the_command_line_wins_over_the_file_where_it_says_something(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("analyze: {method: fisher, seed: 3, candidates: [4, 8]}\n")
    given: dict[str, Any] = {"method": "weight", "seed": None, "candidates": [], "quantizer": "rtn"}
    found = merged("analyze", path, given)
    assert (found["method"], found["seed"], found["quantizer"]) == ("weight", 3, "rtn")
    assert [str(each) for each in found["candidates"]] == ["4", "8"]


def test_false_and_zero_are_values_and_without_a_file_the_rest_is_left_out() -> None:
    assert merged("search", None, {"trials": 0, "flag": False, "timeout": None, "pin": []}) == {"trials": 0, "flag": False}


def test_a_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("analyze: {methods: fisher}\n")
    with pytest.raises(ConfigError):
        merged("analyze", path, {})


def test_defaults_are_shown_as_they_are_typed() -> None:
    assert default_of(AnalysisSettings(), "candidates") == "[default: 4,8,16]"
    assert default_of(SearchSettings(), "trials") == "[default: 64]"
