"""Generates the JSON schemas of the files that users edit from the definitions that read them: python -m mpq.schemas.generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from mpq.check.budgets_file import BudgetsFile
from mpq.config_file import ConfigFile
from mpq.records.plan_file import PlanFile
from mpq.schemas import Name

_KINDS: dict[Name, type[msgspec.Struct]] = {"plan": PlanFile, "config": ConfigFile, "budgets": BudgetsFile}
_TITLES: dict[Name, str] = {"plan": "mpq plan", "config": "mpq configuration", "budgets": "mpq budgets"}


def generated(name: Name) -> dict[str, Any]:
    """The schema of one kind of file (draft 2020-12), with every definition inlined where it is used."""
    kind = _KINDS[name]
    (_, parts) = msgspec.json.schema_components([kind], ref_template="{name}")
    body = _folded(_inlined(parts[kind.__name__], parts), keep_null=name == "plan")  # mpq writes null only in plans
    if name == "config":
        for section in body["properties"].values():
            _add_hyphened(section)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"mpq-{name}-1", "title": _TITLES[name]}
    made: dict[str, Any] = head | body
    return made


def text_of(name: Name) -> str:
    """The text of a schema file."""
    return json.dumps(generated(name), indent=2, ensure_ascii=False) + "\n"


def _inlined(value: Any, parts: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_inlined(each, parts) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        beside = {key: each for key, each in value.items() if key != "$ref"}
        return _inlined(parts[value["$ref"]], parts) | _inlined(beside, parts)
    return {key: _inlined(each, parts) for key, each in value.items() if not _is_noise(key, each)}


def _folded(value: Any, *, keep_null: bool) -> Any:
    """The schema with "or null" as a second type, or without it if it only means that a key may be missing."""
    if isinstance(value, list):
        return [_folded(each, keep_null=keep_null) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: _folded(each, keep_null=keep_null) for key, each in value.items()}
    options = value.get("anyOf", [])
    others = [each for each in options if each != {"type": "null"}]
    if len(others) == len(options) or (len(others) > 1 and keep_null):
        return value
    bare = {key: each for key, each in value.items() if key != "anyOf"}
    if len(others) > 1:
        return bare | {"anyOf": others}
    kind = others[0].get("type")
    return others[0] | bare | ({"type": [kind, "null"]} if keep_null and kind else {})


def _is_noise(key: str, value: Any) -> bool:
    """Whether a keyword is noise: class names, and defaults, which all mean "not given"."""
    return (key == "title" and isinstance(value, str)) or (key == "default" and not isinstance(value, dict))


def _add_hyphened(section: dict[str, Any]) -> None:
    """Also allow the names of the command-line options for the settings."""
    for name, value in list(section["properties"].items()):
        if "_" in name:
            section["properties"][name.replace("_", "-")] = value


def main() -> None:
    """Write all schemas."""
    for name in _KINDS:
        Path(__file__).with_name(f"{name}.schema.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
