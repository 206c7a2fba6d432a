import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import mpq
from mpq.budget import Budget
from mpq.config import AnalysisSettings, DataSettings, SearchSettings
from mpq.errors import BudgetError, SchemeError
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import plan_to_yaml
from mpq.schemas import NAMES, Name, schema
from mpq.search.run import search
from tests.small import random_table

CONFIGS = sorted((Path(mpq.__file__).parents[1] / "configs").glob("*.yaml"))


def problems(name: Name, value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema(name)).iter_errors(value)]


def written() -> dict[str, Any]:
    found = random_table(1)
    name = found.layers[0].name
    made: dict[str, Any] = yaml.safe_load(plan_to_yaml(search(found, "5bits", pins={name: "int8"}).plan))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_a_schema(name: Name) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_a_plan_as_written_is_valid() -> None:
    assert problems("plan", written()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", {"a": "int9"}),
        ("budget", {"limit": "4.5 apples", "scope": "layers"}),
        ("stranger", 1),
        ("shapes", {"a": "3"}),
        ("mpq_plan", 5),
        ("analysis", {"path": "model.sensitivity.jsonl"}),
    ],
)
def test_a_plan_with_a_wrong_value_is_not(key: str, value: object) -> None:
    assert problems("plan", {**copy.deepcopy(written()), key: value})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert problems("config", yaml.safe_load(path.read_text())) == []


def test_a_configuration_with_every_section_is_valid() -> None:
    text = """
    analyze: {candidates: ["4", 8, 2..8], targets: "re:.*proj", held_out: 0.2, num-samples: 64}
    search: {budget: 4.5bits, scope: file, trials: 48, pins: {lm_head: int8}, ties: [[q, k, v]]}
    check: {budget: 30%, max_error: 0.02}
    """
    assert problems("config", yaml.safe_load(text)) == []


@pytest.mark.parametrize("text", ["analyse: {}", "search: {budgets: 4bits}", "search: {pins: {a: int40}}", "analyze: {held_out: 1}"])
def test_a_configuration_with_a_mistake_is_not(text: str) -> None:
    assert problems("config", yaml.safe_load(text))


def test_every_setting_is_in_the_schema() -> None:
    sections = schema("config")["properties"]
    for section, kinds in (("analyze", (AnalysisSettings, DataSettings)), ("search", (SearchSettings,))):
        named = set(sections[section]["properties"])
        missing = {field.name for kind in kinds for field in fields(kind)} - named - {"spread"}  # only older files set that
        assert not missing, f"add them to mpq/config_file.py, section {section}"


@pytest.mark.parametrize("text", ["int4", "int4-g32", "int4-asym-g32", "fp16", "int9", "fp16-g32", "int4-g1", "4", "int4-g", "bf16-asym"])
def test_schemes_are_valid_where_they_can_be_read(text: str) -> None:
    try:
        parse_scheme(text)
        readable = True
    except SchemeError:
        readable = False
    assert Draft202012Validator(schema("plan")["properties"]["layers"]["additionalProperties"]).is_valid(text) == readable


@pytest.mark.parametrize("text", ["4.5bits", "4 bpw", "12MB", "12MiB", "900kB", "30%", ".5GB", "12", "MB", "4.5.bits", "-1MB"])
def test_budgets_are_valid_where_they_can_be_read(text: str) -> None:
    try:
        Budget(text)
        readable = True
    except BudgetError:
        readable = False
    assert Draft202012Validator(schema("plan")["properties"]["budget"]["properties"]["limit"]).is_valid(text) == readable


def test_a_budgets_file_with_every_rule_is_valid() -> None:
    text = """
    mpq_budgets: 1
    budgets:
      - name: the language model
        files: ["lm/plan.yaml", "lm/*.mpq.safetensors"]
        max_bits: 4.5
        max_bytes: 12MB
        max_loaded: 64MB
        max_loaded_packed: 12MB
        max_share: 30%
        max_error: 0.02
        baseline: origin/main
        max_growth: 0.5%
        max_error_growth: 10%
        forbid: {"*embed*": [int2, int3]}
        require: {lm_head: int8}
      - files: lm/*.mpq.safetensors
        max_error: 0.1
        data: test.jsonl
        metric: perplexity
        reference: lm/model.pt2
        seq_len: 128
        num_samples: 64
    """
    assert problems("budgets", yaml.safe_load(text)) == []


@pytest.mark.parametrize("text", ["{mpq_budgets: 1, budgets: []}", "{mpq_budgets: 1, budgets: [{max_bits: 4}]}", "{budgets: [{files: a}]}"])
def test_a_budgets_file_with_a_mistake_is_not(text: str) -> None:
    assert problems("budgets", yaml.safe_load(text))
