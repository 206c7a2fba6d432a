"""The plans that an artifact may have been made from, and the data that a plan names. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpq.errors import MpqError
from mpq.files import exists
from mpq.records.activations import without_ranges
from mpq.records.artifact import ArtifactHeader
from mpq.records.plan import Plan, read_plan


def plans_beside(path: Path, header: ArtifactHeader) -> Iterator[tuple[Path, Plan]]:
    """The plans in the folder of an artifact that have its model and its schemes, in order of their names."""
    folder = path.resolve().parent
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            plan = read_plan(file)
        except MpqError:
            continue  # YAML of something else
        if is_plan_of(plan, header):
            yield file, plan


def is_plan_of(plan: Plan, header: ArtifactHeader) -> bool:
    """Whether a plan has the model and the schemes of an artifact, whose ranges of activations may have been trained."""
    same = plan.model.get("sha256") == header.model.get("sha256") and plan.layers == header.schemes
    return same and without_ranges(plan.activations) == without_ranges(header.activations)


def data_file(facts: Mapping[str, Any], beside: Path) -> str | None:
    """The path of an analysis's data, with its selection; None if it is not a file, or does not exist.

    Args:
        facts: the source, as the file says.
        beside: the file; a path is relative to its folder.
    """
    path, mark, rest = str(facts.get("source", "")).partition("?")
    return f"{beside.parent / path}{mark}{rest}" if path and exists(beside.parent / path) else None
