"""What finalists are called: in plain words, in files and for people. No torch.

A study uses short names for the stages of a search; earlier versions also wrote these into plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TABLE_OPTIMUM = "table optimum"
INTERACTIONS = "optimum with interactions"
START = "starting plan"
LEAST_MEASURED = "least measured error"
PLAIN = {
    "exact": TABLE_OPTIMUM,
    "quadratic": INTERACTIONS,
    "start": START,
    "slopes": "gradient search",
    "knobs": "re-weighted table",
    "learn": "learned errors",
    "swap": "layer swaps",
    "swaps": "layer swaps",
    "lowest": LEAST_MEASURED,
}
"""Plain name by the short name of a stage."""


def plain_name(name: str) -> str:
    """The plain name of a finalist or a stage; one that is plain already, or a scheme, stays."""
    return PLAIN.get(name, name)


def plain_evidence(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence of a plan with plain names, also where an earlier version wrote it."""
    found = dict(evidence)
    if isinstance(found.get("decision"), str):
        name, mark, reason = found["decision"].partition(":")
        found["decision"] = plain_name(name) + mark + reason
    if isinstance(found.get("finalists"), list):
        found["finalists"] = [{**row, "name": plain_name(str(row.get("name")))} for row in found["finalists"]]
    return found
