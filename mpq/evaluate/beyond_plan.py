"""Detects an evaluation error much larger than that on the plan's held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpq.models.running.metric_registry import COMBINED, EVALUATED, Evaluated
from mpq.records.evaluation import Evaluation

TIMES = 3.0


def beyond_plan(found: Evaluation, evidence: Mapping[str, Any], *, plan: str) -> str | None:
    """A warning if the error is more than `TIMES` the held-out error in the plan's evidence; None if it is not, or is unknown.

    Args:
        found: the evaluation of the artifact.
        evidence: of the plan.
        plan: its file name.
    """
    name = str(evidence.get("metric"))
    known = Evaluated(COMBINED) if name == COMBINED else EVALUATED.get(name)
    held_out = (evidence.get("measured") or {}).get("held_out")
    figure = None if known is None else next((each for each in found.figures if each.name == known.figure), None)
    if known is None or figure is None or held_out is None or held_out <= 0:
        return None
    error = 1 - figure.quantized if known.agreement else figure.quantized
    if not error > TIMES * held_out:
        return None
    return (
        f"{evidence['metric']} is {error:.3g} on this data, {_times(error / held_out)} times the {held_out:.3g} on the held-out samples "
        f"of {plan}: the calibration data differs from this data. If it was training data, analyze again with validation data"
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"
