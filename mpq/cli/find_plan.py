"""Finds the plan that an artifact was made from."""

from __future__ import annotations

from pathlib import Path

from mpq.errors import MismatchError
from mpq.records.artifact_files import read_header
from mpq.records.artifact_plans import is_plan_of, plans_beside
from mpq.records.plan import Plan, read_plan


def plan_of(artifact: Path, *, given: Path | None = None) -> tuple[Path, Plan] | None:
    """The plan in `given`, else the one in the artifact's folder that has its model and schemes and has evidence; None if there is none.

    Raises:
        MismatchError: if the plan that was given is not that of the artifact.
        MpqError: if it cannot be read.
    """
    if not artifact.exists():
        return None
    header = read_header(artifact)
    if given is not None:
        plan = read_plan(given)
        if not is_plan_of(plan, header):
            raise MismatchError(f"{given} is not the plan of {artifact.name}: its model or schemes differ")
        return given, plan
    return next(((path, plan) for path, plan in plans_beside(artifact, header) if plan.evidence_is_current), None)
