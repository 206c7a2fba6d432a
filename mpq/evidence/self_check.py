"""The result of an analysis's self-check, in words. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LEAST_RANK = 0.5
MOST_OFF = 10.0
_MODELS = ("additive", "interactions")
_TIMES = 2.0  # larger deviations are given as a factor, not in percent
_SMALL = 0.005


def self_check_lines(finish: Mapping[str, Any] | None) -> list[str]:
    """One line per prediction model: "self-check on 12 random plans, additive: rank correlation 0.937, predictions are 9% too small"."""
    check = (finish or {}).get("check", {})
    lines = []
    for model in _MODELS:
        found = check.get(model)
        if found and found["rank"] is not None and found["bias"] is not None:
            off = f"predictions are {off_by(math.exp(found['bias']))}"
            lines.append(f"self-check on {check.get('plans', 0)} random plans, {model}: rank correlation {found['rank']:.3f}, {off}")
    return lines


def self_check_warnings(finish: Mapping[str, Any] | None, *, method: str) -> list[str]:
    """Warnings about the table: that it ranks plans poorly, or that its values are far from measured ones.

    Args:
        finish: the last line of the analysis.
        method: the method of the analysis; "measure" is not advised again.
    """
    check = (finish or {}).get("check", {})
    found = check.get(_MODELS[0]) or {}
    rank, bias = found.get("rank"), found.get("bias")
    told = []
    if rank is not None and rank < LEAST_RANK:
        told.append(f"the rank correlation with measured plans is {rank:.2f}")
    if bias is not None and abs(bias) > math.log(MOST_OFF):
        told.append(f"predictions are {off_by(math.exp(bias))}")
    if not told:
        return []
    other = "more samples" if method == "measure" else "--method measure or more samples"
    advice = f"let `mpq search` measure plans (not --trials 0), and try {other}"
    return [f"the sensitivities predict whole plans poorly: on {check.get('plans', 0)} random plans {' and '.join(told)}; {advice}"]


def off_by(ratio: float) -> str:
    """How far predictions are from measurements, in words.

    Args:
        ratio: predicted over measured.
    """
    side, factor = ("large", ratio) if ratio >= 1 else ("small", 1 / ratio)
    if factor >= _TIMES:
        return f"{factor:.2g} times too {side}" if factor < 100 else f"{factor:.0f} times too {side}"
    share = abs(ratio - 1)
    return "right on average" if share < _SMALL else f"{share:.0%} too {side}"
