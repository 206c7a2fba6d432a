import json
from importlib.resources import files
from pathlib import Path

import pytest

from mpq.schemas import NAMES, Name, schema
from mpq.schemas.generate import generated, main, text_of


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_that_of_the_definition_which_reads_the_file(name: Name) -> None:
    assert files("mpq.schemas").joinpath(f"{name}.schema.json").read_text(encoding="utf-8") == text_of(name), (
        "run python -m mpq.schemas.generate"
    )


def test_all_schemas_are_written_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.schemas.generate.__file__", str(tmp_path / "generate.py"))
    main()
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        f"{name}.schema.json": text_of(name) for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_names_its_draft_and_its_version(name: Name) -> None:
    found = generated(name)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["$id"] == f"mpq-{name}-1"
    assert found["title"] == {"plan": "mpq plan", "config": "mpq configuration", "budgets": "mpq budgets"}[name]
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("name", NAMES)
def test_every_definition_stands_where_it_is_used(name: Name) -> None:
    text = text_of(name)
    assert "$ref" not in text
    assert "$defs" not in text
    assert text.endswith("}\n")
    assert json.loads(text) == generated(name)


def test_the_names_of_registries_are_filled_in_when_a_schema_is_read() -> None:
    assert "enum" not in generated("config")["properties"]["analyze"]["properties"]["metric"]
    assert "kl_divergence" in schema("config")["properties"]["analyze"]["properties"]["metric"]["enum"]
    assert schema("plan") == generated("plan")


def test_settings_of_a_configuration_have_the_names_of_the_options_too() -> None:
    analyze = generated("config")["properties"]["analyze"]["properties"]
    assert analyze["num-samples"] == analyze["num_samples"]
    assert analyze["held-out"] == analyze["held_out"]


def test_null_is_allowed_in_plans_only() -> None:
    assert '"null"' in text_of("plan")
    assert '"null"' not in text_of("config")
    assert '"null"' not in text_of("budgets")
