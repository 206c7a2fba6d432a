"""JSON schemas of the files that people write: plans, configurations, budgets. Editors complete and check with them. No torch."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Literal, get_args

Name = Literal["plan", "config", "budgets"]
NAMES: tuple[Name, ...] = get_args(Name)


def schema(name: Name) -> dict[str, Any]:
    """The schema of a plan, a configuration file, or a file of budgets (draft 2020-12)."""
    found: dict[str, Any] = json.loads(files("mpq.schemas").joinpath(f"{name}.schema.json").read_text(encoding="utf-8"))
    return found
