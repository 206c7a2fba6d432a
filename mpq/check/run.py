"""The CI gate: is the model within its size budget and its error budget? No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mpq.budget import Budget, Scope
from mpq.check.measure_size import has_layers, weigh
from mpq.errors import UsageError
from mpq.records.activations import summary
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import artifact_bytes, read_header
from mpq.records.artifact_plans import plans_beside
from mpq.records.file_kind import kind_of
from mpq.records.plan import Plan, read_plan
from mpq.records.unsearched import unsearched_share

CERTAIN = "; the reference is nearly certain on the samples behind this limit, as on training data: expect a larger error on other data"
"""Added to a limit that is measured on such samples."""


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Args:
        name: what was checked, for example "size (layers)".
        passed: the answer.
        message: the values behind it, for people.
        details: the layers that break the rule, one line each.
        layer: the first of them, where the check is about single layers.
    """

    name: str
    passed: bool
    message: str
    details: tuple[str, ...] = ()
    layer: str | None = None


def check_file(path: Path, *, budget: str | None = None, scope: Scope | None = None, max_error: float | None = None) -> list[Check]:
    """Check a plan, an artifact, or the size of any model file or folder; nothing if no limit is given.

    This does not check the plan's own budget: see `own_budget`.

    Args:
        path: a plan, an artifact, or a model file or folder.
        budget: a size limit.
        scope: what `budget` counts; None uses the scope of the plan's own budget, else "layers".
        max_error: limit for the held-out error, in the plan's metric's evidence.

    Raises:
        UsageError: if a limit does not apply to this file.
        MpqError: if the file cannot be read.
    """
    if budget is not None:
        Budget(budget, scope or "layers").check_possible()
    if scope is not None and budget is None:
        raise UsageError(f"--scope {scope} says what --budget counts: give --budget too, for example --budget 4.5bits")
    if not has_layers(path):
        return _check_size(path, budget=budget, scope=scope, max_error=max_error)
    kind = kind_of(path)
    if kind == "artifact":
        return _check_artifact(path, budget=budget, scope=scope, max_error=max_error)
    if kind == "sensitivity":
        raise UsageError(f"{path} is a sensitivity file, which has no size of its own: check a plan or an artifact")
    plan = read_plan(path)
    checks = []
    if budget is not None:
        wanted = Budget(budget, scope or (plan.budget.scope if plan.budget else "layers"))
        checks.append(_size(*plan.counted(wanted), wanted, plan.size.file_bytes))
    return checks if max_error is None else [*checks, _error_of(plan, max_error)]


def own_budget(plan: Plan) -> list[Check]:
    """The check of the budget that a plan carries; nothing if it carries none."""
    return [] if plan.budget is None else [_size(*plan.counted(plan.budget), plan.budget, plan.size.file_bytes)]


def relation(taken: int, limit: int) -> str:
    """How far from a limit: "12 bytes (1.20%) over"."""
    over = taken - limit
    share = f" ({over / limit:.2%})" if limit > 0 else ""
    return f"{over:,} bytes{share} over" if over > 0 else f"{-over:,} bytes under"


def _size(taken: int, limit: int, weights: int, budget: Budget, file_bytes: int) -> Check:
    name = f"size of {'the layers' if budget.scope == 'layers' else 'the file'}"
    bits = f"{8 * taken / weights:.4f} bits per weight"
    message = f"{taken:,} bytes, {bits}; {relation(taken, limit)} the budget of {budget.limit} ({limit:,} bytes)"
    beyond = f"; not searched: {unsearched_share(file_bytes, taken)}" if budget.scope == "layers" else ""
    return Check(name, taken <= limit, message + beyond)


def _error_of(plan: Plan, max_error: float) -> Check:
    name = f"error ({plan.evidence.get('metric', 'unknown metric')}, held-out)"
    found = plan.held_out_error
    if found is None:
        return Check(name, False, "the plan has no held-out measurement: run `mpq search` with the model, without --trials 0")
    if not plan.evidence_is_current:
        return Check(name, False, "the layers were edited after they were measured: run `mpq search` again, or `mpq eval`")
    return Check(name, found <= max_error, against_error(plan, found, max_error))


def against_error(plan: Plan, found: float, limit: float) -> str:
    """Whether a plan's held-out error is within a limit, with a caution about the samples it was measured on."""
    relation = "within" if found <= limit else f"{found - limit:.4g} over"
    rounded = f"; activations: {summary(plan.activations)}" if plan.activations else ""
    return f"{found:.4g}, {relation} the limit of {limit:g}{rounded}{CERTAIN if 'caution' in plan.data else ''}"


def _check_size(path: Path, *, budget: str | None, scope: Scope | None, max_error: float | None) -> list[Check]:
    if max_error is not None or scope == "layers":
        raise UsageError(f"{path} is neither a plan nor an artifact: only its size can be checked, for example with --budget 12MB")
    if budget is None:
        return []
    wanted = Budget(budget, "file")
    if wanted.unit_is_relative:
        raise UsageError(f"budget {budget} needs a plan or an artifact, and {path} is neither: give bytes, for example --budget 12MB")
    taken, limit = weigh(path).bytes, wanted.bytes(weights=0, original_bytes=0)
    message = f"{taken:,} bytes; {relation(taken, limit)} the budget of {budget} ({limit:,} bytes)"
    return [Check("size of the file", taken <= limit, message)]


def _check_artifact(path: Path, *, budget: str | None, scope: Scope | None, max_error: float | None) -> list[Check]:
    if max_error is not None:
        raise UsageError(f"{path} is an artifact, which has no measurements: give --data to measure it, or check its plan")
    header = read_header(path)
    if budget is None:
        return [_check_by_plan(path, header)]
    wanted = Budget(budget, scope or "layers")
    weights = sum(layer.weights for layer in header.layers)
    taken = sum(header.schemes[layer.name].stored_bits(layer.matrix) // 8 for layer in header.layers)
    if wanted.scope == "file":
        if wanted.unit_is_relative:
            raise UsageError(
                f"budget {wanted} needs the size of the whole model, which an artifact does not record: check the plan, or give bytes"
            )
        taken = artifact_bytes(path)
    limit = wanted.bytes(weights=weights, original_bytes=sum(layer.original_bytes for layer in header.layers))
    return [_size(taken, limit, weights, wanted, artifact_bytes(path))]


def _check_by_plan(path: Path, header: ArtifactHeader) -> Check:
    """The budget of the plan that the artifact was made from: one in its folder with the same model and schemes."""
    plans = [(file, plan, plan.budget) for file, plan in plans_beside(path, header) if plan.budget is not None]
    if not plans:
        raise UsageError(
            f"{path} is an artifact, which has no budget, and no plan next to it has its layers: give --budget, or check the plan"
        )
    if len({budget for _, _, budget in plans}) > 1:
        named = ", ".join(f"{file.name} {budget}" for file, _, budget in plans)
        raise UsageError(f"{path} has the layers of several plans with different budgets ({named}): give --budget")
    file, plan, budget = plans[0]
    taken, limit, weights = plan.counted(budget)
    whole = artifact_bytes(path)
    found = _size(whole if budget.scope == "file" else taken, limit, weights, budget, whole)
    return replace(found, message=f"{found.message}, from {file.name}")
