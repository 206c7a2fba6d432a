"""Sketches for `mpq monitor` in a plan: what they add to the artifact. No torch."""

from __future__ import annotations

from dataclasses import replace

from mpq.errors import ApplyError
from mpq.records.artifact import ArtifactHeader
from mpq.records.plan import Plan
from mpq.records.stored_sketches import watched_layers


def with_sketches(plan: Plan, wanted: bool | None) -> Plan:
    """The plan with or without sketches; None leaves them as the plan says.

    Raises:
        ApplyError: if there is no room for them in the plan's budget.
    """
    if wanted is None or wanted == (plan.sketches is not None):
        return plan
    if not wanted:
        return replace(plan, sketches=None)
    found = replace(plan, sketches=watched_layers(list(plan.layers), plan.model.get("kind")))
    if plan.budget is not None:
        (before, limit, _), (after, _, _) = plan.counted(plan.budget), found.counted(plan.budget)
        if before <= limit < after:
            raise ApplyError(
                f"sketches take {after - before:,} bytes, and the plan's budget {plan.budget} leaves {limit - before:,}: leave out "
                "--sketches, or search again with --sketches, which makes room for them"
            )
    return found


def as_in_artifact(plan: Plan, header: ArtifactHeader) -> Plan:
    """The plan with the sketches of its artifact, so that what is written anew has them too."""
    return replace(plan, sketches=None if header.sketches is None else header.sketches.layers)
