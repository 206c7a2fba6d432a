"""How much of each lookup table the calibration data reaches, in words. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reach_lines(finish: Mapping[str, Any] | None) -> list[str]:
    """One line for each table that calibration reaches only in part, from the last line of the analysis (`analyze/unseen_rows.py`)."""
    lines = []
    for name, found in (finish or {}).get("unseen_rows", {}).items():
        reach = (
            f"calibration reaches {found['reached'] / found['rows']:.1%} of the rows of {name} ({found['reached']:,} of {found['rows']:,})"
        )
        adds = ", ".join(f"{value:.3g} at {scheme}" for scheme, value in found["adds"].items() if value > 0)
        lines.append(f"{reach}; about {found['share']:.1%} of new lookups hit other rows, which adds {adds or 'nothing'}")
    return lines
