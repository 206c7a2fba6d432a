"""JSON schemas of the files that users edit: plans, configurations, budgets. Editors use them to complete and check. No torch.

`mpq/schemas/generate.py` writes the files here. They lack the names of metrics, quantizers and methods, which come from the registries.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Literal, get_args

from mpq.analyze.methods.registry import METHODS
from mpq.models.running.metric_registry import FIGURES, METRICS
from mpq.tensors.quantizers.registry import QUANTIZERS

Name = Literal["plan", "config", "budgets"]
NAMES: tuple[Name, ...] = get_args(Name)


def schema(name: Name) -> dict[str, Any]:
    """The schema of a plan, a configuration file, or a file of budgets (draft 2020-12)."""
    found: dict[str, Any] = json.loads(files("mpq.schemas").joinpath(f"{name}.schema.json").read_text(encoding="utf-8"))
    _fill(name, found)
    return found


def _fill(name: Name, found: dict[str, Any]) -> None:
    """Fill the names from the registries into a schema, in place."""
    if name == "config":
        settings = found["properties"]["analyze"]["properties"]
        settings["metric"] |= {"enum": ["auto", *METRICS]}
        settings["quantizer"] |= {"examples": ["auto", *QUANTIZERS]}
        settings["method"] |= {"examples": ["auto", *METHODS]}
    if name == "budgets":
        found["properties"]["budgets"]["items"]["properties"]["metric"] |= {"enum": list(FIGURES)}
