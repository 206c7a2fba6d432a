from pathlib import Path

import pytest

from mpq.check.budgets import Rule, read_budgets, rule_from
from mpq.errors import ConfigError, FormatError


def written(path: Path, text: str) -> Path:
    (path / "mpq-budgets.yaml").write_text(text)
    return path / "mpq-budgets.yaml"


def test_a_rule_is_read_with_all_its_limits(tmp_path: Path) -> None:
    text = """
mpq_budgets: 1
budgets:
  - name: lm
    files: [a.yaml, "b/*.yaml"]
    max_bits: 4.5
    max_bytes: 12MiB
    max_loaded: 64MB
    max_share: 30%
    max_error: 0.02
    baseline: origin/main
    max_growth: 0.5%
    max_error_growth: 10%
    forbid: {"*embed*": [int2, int3]}
    require: {head: int4-g32}
"""
    (rule,) = read_budgets(written(tmp_path, text))
    assert rule == Rule(
        files=("a.yaml", "b/*.yaml"),
        name="lm",
        max_bits=4.5,
        max_bytes=12 * 2**20,
        max_loaded=64 * 10**6,
        max_share=30.0,
        max_error=0.02,
        max_growth=0.5,
        max_error_growth=10.0,
        baseline="origin/main",
        forbid={"*embed*": ("int2", "int3")},
        require={"head": ("int4-g32",)},
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.yaml", "it is 'a.yaml': give a mapping"),
        ({"max_bits": 4}, "it lacks the key 'files'"),
        ({"files": "a", "max_bit": 4}, "it has the unknown key 'max_bit': use files, name, max_bits, "),
        ({"files": "a"}, "the rule for 'a' limits nothing: give one of max_bits, "),
        ({"files": "a", "max_bits": "4"}, "max_bits is '4': give a number of 0 or more"),
        (
            {"files": "a", "max_bytes": "4.5bits"},
            "max_bytes is '4.5bits': give bytes, for example 12MB; use max_bits or max_share to limit bits or a share",
        ),
        ({"files": "a", "max_bytes": "much"}, "max_bytes is 'much': give bytes, for example 12MB"),
        ({"files": "a", "max_loaded": "30%"}, "max_loaded is '30%': give bytes, for example 12MB"),
        ({"files": "a", "max_share": 30}, "max_share is 30: give a percentage, for example 1%"),
        ({"files": "a", "max_growth": "1%"}, "max_growth needs a baseline: a git revision such as origin/main, or a file"),
        ({"files": "a", "forbid": ["int4"]}, "forbid is ['int4']: give schemes by layer pattern"),
        ({"files": "a", "forbid": {"*": "int9"}}, "forbid: unknown scheme 'int9': use one of "),
        ({"files": "a", "max_bits": 4, "data": "test.pt"}, "`data` 'test.pt' has no effect without `max_error`"),
        ({"files": "a", "max_error": 1, "metric": "loss"}, "metric has no effect without data: give data too, for example data: test.pt"),
        ({"files": "a", "max_error": 1, "data": "t", "metric": "los"}, "metric 'los' is unknown: use kl_divergence, "),
        ({"files": "a", "max_bits": True}, "max_bits is True: give a number of 0 or more"),
        ({"files": "a", "max_bytes": "0.1B"}, "max_bytes is '0.1B': give bytes"),
        ({"files": [], "max_bits": 4}, "files is []: give a list of 1 or more entries"),
        ({"files": ["a", {"b": 1}], "max_bits": 4}, "files[1] is {'b': 1}: give a whole number, a number or text"),
        ({"files": "a", "forbid": {"*": [["int4"]]}}, "forbid.*[0] is ['int4']: give text"),
        ({"files": "a", "forbid": {}}, "forbid is {}: give schemes by layer pattern"),
        ({"files": "a", "max_share": "9" * 80 + "%"}, "max_share is '9999999999"),
        ({"files": "a", "max_error": 1, "data": "t", "num_samples": 0}, "num_samples is 0: give a whole number of 1 or more"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(entry: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rule_from(entry)
    assert message in str(caught.value)


def test_the_rule_at_fault_is_numbered(tmp_path: Path) -> None:
    path = written(tmp_path, "mpq_budgets: 1\nbudgets:\n  - {files: a, max_bits: 4}\n  - {files: b}\n")
    with pytest.raises(ConfigError, match=r"mpq-budgets.yaml, line 4: the rule for 'b' limits nothing"):
        read_budgets(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgets: []", "is not a file of budgets: write 'mpq_budgets: 1' and a list 'budgets:'"),
        ("[", "is not YAML"),
        ("mpq_budgets: 1\nbudgets: [{files: a, max_bits: 4}]\nx: 1", "has the unknown key 'x': use mpq_budgets, budgets"),
    ],
)
def test_a_file_that_is_none_of_budgets_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_budgets(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a file of budgets of version 2, this mpq reads up to 1: upgrade mpq"):
        read_budgets(written(tmp_path, "mpq_budgets: 2\nbudgets: [{files: a, max_bits: 4}]"))


def test_a_missing_file_tells_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`mpq check --init` writes one"):
        read_budgets(tmp_path / "none.yaml")
