from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpq.check import verdicts as judging
from mpq.check.budgets import Rule
from mpq.check.run import Check
from mpq.check.verdicts import Verdict, matches
from mpq.errors import ConfigError, FormatError, PatternError, UsageError
from mpq.formats.scheme import parse_scheme
from mpq.records.evaluation import Evaluation
from mpq.records.loaded_size import loaded_bytes
from mpq.records.plan import Plan, write_plan
from tests.check.making import commit, plan_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(embed: str = "int4", block: str = "int4", head: str = "int8", *, held_out: float | None = 0.1, path: str = "plan.yaml") -> Plan:
    made = plan_of(f"{embed} {block} {head}", held_out)
    write_plan(made, Path(path))
    return made


def measured(artifact: Path, rule: Rule) -> Evaluation:
    raise AssertionError(f"{artifact} was measured")


def judge(rules: list[Rule], root: Path) -> list[Verdict]:
    return judging.judge(rules, root, measure=measured)


def checks(**limits: Any) -> list[Check]:
    (verdict,) = judge([Rule(("plan.yaml",), **limits)], Path())
    return list(verdict.checks)


def test_every_limit_is_one_check() -> None:
    size = plan().size
    found = checks(max_bits=size.effective_bits, max_bytes=size.file_bytes, max_share=100.0, max_error=0.1)
    assert [(check.name, check.passed) for check in found] == [
        ("bits per weight", True),
        ("size of the file", True),
        ("share of the original", True),
        ("held-out error (kl_divergence)", True),
    ]


def test_a_limit_broken_by_one_byte_fails_and_names_the_largest_layers() -> None:
    size = plan().size.file_bytes
    (check,) = checks(max_bytes=size - 1)
    assert not check.passed
    assert check.message.startswith(f"{size:,} bytes, 1 bytes (")
    assert check.details[0] == "embed: 2,176 bytes at int4"


def test_growth_names_the_layers_that_grew() -> None:
    plan()
    commit()
    plan(block="int8")
    (check,) = checks(baseline="HEAD", max_growth=1.0)
    assert not check.passed
    assert check.details == ("block.0: +2,048 bytes (int4 -> int8)",)


def test_growth_within_the_percentage_passes() -> None:
    plan()
    commit()
    plan(block="int8")
    (check,) = checks(baseline="HEAD", max_growth=200.0)
    assert check.passed


def test_growth_can_be_counted_against_a_file() -> None:
    plan(path="old.yaml")
    plan(embed="int8")
    (check,) = checks(baseline="old.yaml", max_growth=0.0)
    assert check.details == ("embed: +2,048 bytes (int4 -> int8)",)


def test_what_the_baseline_does_not_have_is_new_and_passes() -> None:
    Path("other").write_text("x")
    commit()
    plan()
    (check,) = checks(baseline="HEAD", max_growth=0.0)
    assert (check.passed, check.message) == (True, "it is new: HEAD does not have it")


def test_an_unknown_revision_is_an_error_and_no_pass() -> None:
    plan()
    commit()
    with pytest.raises(UsageError, match="cannot read revision nowhere: git does not know it"):
        checks(baseline="nowhere", max_growth=0.0)


def test_the_error_may_not_grow_beyond_its_percentage() -> None:
    plan(held_out=0.1)
    commit()
    plan(held_out=0.12)
    assert [check.passed for check in checks(baseline="HEAD", max_error_growth=10.0)] == [False]
    assert [check.passed for check in checks(baseline="HEAD", max_error_growth=20.0)] == [True]


def test_an_edited_plan_has_no_error_that_could_pass() -> None:
    write_plan(replace(plan(), layers={name: parse_scheme("int8") for name in ("embed", "block.0", "head")}), Path("plan.yaml"))
    (check,) = checks(max_error=1.0)
    assert (check.passed, check.message) == (False, "not known: the layers were edited after they were measured; run `mpq search` again")


def test_a_plan_without_measurement_has_no_error_that_could_pass() -> None:
    plan(held_out=None)
    assert [check.passed for check in checks(max_error=1.0)] == [False]


def test_forbidden_and_required_schemes_name_their_layers() -> None:
    plan()
    forbidden, required = checks(forbid={"embed": ("int4", "int3")}, require={"head": ("int4-g32", "fp16")})
    assert (forbidden.details, forbidden.layer) == (("embed: int4 is forbidden by 'embed'",), "embed")
    assert required.details == ("head: int8, but 'head' requires int4-g32 or fp16",)
    assert [check.passed for check in checks(forbid={"*": ("int2",)}, require={"re:.*": ("int4", "int8")})] == [True, True]


def test_a_format_means_any_group_size_and_a_scheme_only_itself() -> None:
    plan(embed="int4-g32")
    assert [check.passed for check in checks(forbid={"embed": ("int4",)})] == [False]
    assert [check.passed for check in checks(forbid={"embed": ("int4-g64",)})] == [True]


def test_a_pattern_that_matches_no_layer_is_refused() -> None:
    plan()
    with pytest.raises(PatternError, match=r"'tail' matches no layer of plan.yaml: `mpq show` on the plan lists them"):
        checks(forbid={"tail": ("int4",)})


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [("a.b", "a.b", True), ("a.*", "a.b.c", True), ("re:a..", "a.b", True), ("re:a", "a.b", False), ("a[0]", "a[0]", True)],
)
def test_patterns_are_names_globs_or_regular_expressions(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize("name", ["m.gguf", "m.onnx", "m.pt2", "m.safetensors"])
def test_any_model_file_has_a_size(name: str) -> None:
    Path(name).write_bytes(bytes(1000))
    (verdict,) = judge([Rule((name,), max_bytes=999)], Path())
    assert [(c.passed, c.message) for c in verdict.checks] == [(False, "1,000 bytes, 1 bytes (0.10%) over the limit of 999")]


def test_a_folder_counts_all_it_holds_and_onnx_its_weights_beside_it() -> None:
    Path("hf/deep").mkdir(parents=True)
    Path("hf/a").write_bytes(bytes(10))
    Path("hf/deep/b").write_bytes(bytes(20))
    Path("m.onnx").write_bytes(bytes(10))
    Path("m.onnx.data").write_bytes(bytes(30))
    messages = [v.checks[0].message for v in judge([Rule(("hf", "m.onnx"), max_bytes=100)], Path())]
    assert messages == ["30 bytes, 70 bytes under the limit of 100", "40 bytes, 60 bytes under the limit of 100"]


def test_a_large_file_is_compared_with_what_its_pointer_says() -> None:
    Path("m.gguf").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1000\n")
    commit()
    Path("m.gguf").write_bytes(bytes(1100))
    (verdict,) = judge([Rule(("m.gguf",), baseline="HEAD", max_growth=5.0)], Path())
    assert verdict.checks[0].message == "+100 bytes (+10.00%) since HEAD, allowed is 5%"


def test_a_limit_of_bits_needs_layers() -> None:
    Path("m.gguf").write_bytes(bytes(10))
    with pytest.raises(ConfigError, match=r"max_bits needs a plan or an artifact, and m.gguf is neither: limit its size with max_bytes"):
        judge([Rule(("m.gguf",), max_bits=4.0)], Path())


def test_globs_find_files_and_a_glob_that_finds_none_is_refused() -> None:
    Path("a").mkdir()
    plan(path="a/one.yaml")
    plan(path="a/two.yaml")
    assert [v.file for v in judge([Rule(("a/*.yaml",), max_bits=9.0)], Path())] == ["a/one.yaml", "a/two.yaml"]
    with pytest.raises(ConfigError, match=r"'b/\*.yaml' matches no file"):
        judge([Rule(("b/*.yaml",), max_bits=9.0)], Path())


def test_a_file_that_is_not_there_is_an_error_and_no_pass() -> None:
    with pytest.raises(FormatError, match=r"plan.yaml does not exist: name a plan, an artifact, or any model file or folder"):
        checks(max_bits=4.0)


def test_loaded_memory_is_that_of_all_parameters() -> None:
    made = plan()
    taken = loaded_bytes(made.layers, made.shapes, original_bytes=made.original_bytes, rest_bytes=made.rest.original_bytes)
    assert [check.passed for check in checks(max_loaded=taken)] == [True]
    (check,) = checks(max_loaded=taken - 1)
    assert (check.passed, check.message.startswith(f"{taken:,} bytes, 1 bytes (")) == (False, True)
    packed = checks(max_loaded_packed=taken - 1)
    assert [(check.name, check.passed) for check in packed] == [("loaded memory, packed", True)]
    Path("m.gguf").write_bytes(bytes(10))
    with pytest.raises(ConfigError, match="max_loaded needs a plan or an artifact"):
        judge([Rule(("m.gguf",), max_loaded=100)], Path())
