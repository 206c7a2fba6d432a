"""Measured values for the hub's model-index: task, dataset, metrics, each with its standard error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from mpq.records.plan import Plan

_KIND = "mpq"


@dataclass(frozen=True)
class Result:
    """One measured value.

    Args:
        dataset: the data it was measured on, in words.
        metric: its name for programs.
        name: for people.
        value: value of the quantized model.
        stderr: its standard error; None if it has none.
        reference: value of the original model; None if the metric compares the two.
    """

    dataset: str
    metric: str
    name: str
    value: float
    stderr: float | None = None
    reference: float | None = None


def held_out(plan: Plan) -> list[Result]:
    """The error of a plan on held-out samples; empty if it was measured for other schemes, or not at all."""
    measured = plan.evidence.get("measured", {}) if plan.evidence_is_current else {}
    if not isinstance(measured.get("held_out"), (int, float)):
        return []
    metric, samples = str(plan.evidence.get("metric")), measured.get("samples", {}).get("held_out")
    where = PurePath(str(plan.data.get("source", "data"))).name
    name = f"{metric} to the original, on samples that helped to choose the plan"
    return [Result(f"{where}, {samples} held-out samples", metric, name, measured["held_out"], measured.get("held_out_stderr"))]


def evaluated(evaluation: Mapping[str, Any]) -> list[Result]:
    """The values of an evaluation that are numbers."""
    where = f"{PurePath(str(evaluation.get('source'))).name}, {evaluation.get('samples')} samples"
    rows = [row for row in evaluation["figures"] if isinstance(row.get("quantized"), (int, float))]
    return [Result(where, row["name"], row["name"], row["quantized"], row.get("stderr"), row.get("reference")) for row in rows]


def model_index(title: str, task: str, results: Iterable[Result]) -> list[dict[str, Any]]:
    """The entry "model-index" of a card's metadata."""
    by_dataset: dict[str, list[Result]] = {}
    for result in results:
        by_dataset.setdefault(result.dataset, []).append(result)
    entries = [
        {"task": {"type": task}, "dataset": {"type": _KIND, "name": dataset}, "metrics": [_metric(result) for result in found]}
        for dataset, found in by_dataset.items()
    ]
    return [{"name": title, "results": entries}]


def _metric(result: Result) -> dict[str, Any]:
    known = {"stderr": result.stderr, "reference": result.reference}
    args = {key: value for key, value in known.items() if value is not None}
    return {"type": result.metric, "name": result.name, "value": result.value, **({"args": args} if args else {})}
