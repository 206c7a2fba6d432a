"""What changed between two plans: layers, bytes, errors, and what makes their errors incomparable. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpq.formats.scheme import Scheme
from mpq.records.activations import summary
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.records.stored_sketches import sketch_bytes


@dataclass(frozen=True)
class LayerChange:
    """A layer that differs.

    Args:
        layer: its name.
        before: its scheme in the old plan; None if it is new.
        after: its scheme in the new plan; None if it is gone.
        bytes: how many more it takes; negative if fewer.
        error: by how much its predicted error grows; None if a scheme was not measured.
    """

    layer: str
    before: Scheme | None
    after: Scheme | None
    bytes: int
    error: float | None = None


@dataclass(frozen=True)
class Change:
    """A value in both plans; None if a plan does not have it."""

    name: str
    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """New minus old."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class PlanDiff:
    """Two plans side by side.

    Args:
        figures: sizes and errors, in display order.
        layers: those that differ, in the order of the new plan; removed layers last.
        unchanged: number of layers that are the same.
        notes: why values may not be comparable.
    """

    figures: tuple[Change, ...]
    layers: tuple[LayerChange, ...]
    unchanged: int
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Change:
        """The value called `name`.

        Raises:
            KeyError: if there is none.
        """
        return {figure.name: figure for figure in self.figures}[name]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "figures": {f.name: {"before": f.before, "after": f.after, "difference": f.difference} for f in self.figures},
            "unchanged": self.unchanged,
            "layers": [
                {
                    "layer": c.layer,
                    "before": None if c.before is None else str(c.before),
                    "after": None if c.after is None else str(c.after),
                    "bytes": c.bytes,
                    "error": c.error,
                }
                for c in self.layers
            ],
            "notes": list(self.notes),
        }


def diff_plans(old: Plan, new: Plan, *, table: Sensitivity | None = None) -> PlanDiff:
    """Compare two plans; a table of the same model gives the effect of each changed layer on the error."""
    names = [*new.layers, *(name for name in old.layers if name not in new.layers)]
    changed = [name for name in names if old.layers.get(name) != new.layers.get(name) or old.shapes.get(name) != new.shapes.get(name)]
    return PlanDiff(
        figures=tuple(_figures(old, new, table)),
        layers=tuple(_change(old, new, name, table) for name in changed),
        unchanged=len(names) - len(changed),
        notes=tuple(_notes(old, new)),
    )


def _change(old: Plan, new: Plan, name: str, table: Sensitivity | None) -> LayerChange:
    before, after = old.layers.get(name), new.layers.get(name)
    taken = _bytes(new, name) - _bytes(old, name)
    error = None
    if table is not None and before is not None and after is not None and {(name, before), (name, after)} <= table.errors.keys():
        error = table.mean(name, after) - table.mean(name, before)
    return LayerChange(name, before, after, taken, error)


def _bytes(plan: Plan, name: str) -> int:
    return plan.layers[name].stored_bits(plan.shapes[name]) // 8 if name in plan.layers else 0


def _figures(old: Plan, new: Plan, table: Sensitivity | None) -> list[Change]:
    sizes = (
        ("effective_bits", "bits per weight over the layers"),
        ("layer_bytes", "bytes of the layers"),
        ("file_bytes", "bytes of the file"),
        ("unsearched_bytes", "bytes not searched"),
    )
    found = [Change(text, getattr(old.size, name), getattr(new.size, name)) for name, text in sizes]
    before, after = _errors(old, table), _errors(new, table)
    return found + [Change(text, before.get(key), after.get(key)) for key, text in _ERRORS.items() if key in before or key in after]


_ERRORS = {"predicted": "predicted error", "calibration": "error on calibration data", "held_out": "error on held-out data"}


def _errors(plan: Plan, table: Sensitivity | None) -> dict[str, float]:
    """The known errors of a plan; measured ones only if its current schemes were measured."""
    evidence = plan.evidence if plan.evidence_is_current else {}
    found = {"predicted": evidence.get("predicted"), **{key: evidence.get("measured", {}).get(key) for key in ("calibration", "held_out")}}
    if table is not None and plan.layers.items() <= table.errors.keys():
        found["predicted"] = sum(table.mean(name, scheme) for name, scheme in plan.layers.items())
    return {key: float(value) for key, value in found.items() if value is not None}


def _notes(old: Plan, new: Plan) -> list[str]:
    notes = []
    if old.model.get("sha256") != new.model.get("sha256"):
        notes.append("the plans are for different models: their errors are not comparable")
    if old.evidence.get("metric") != new.evidence.get("metric") and old.evidence and new.evidence:
        notes.append(f"the errors are in different metrics: {old.evidence.get('metric')} and {new.evidence.get('metric')}")
    if old.rest.dtype != new.rest.dtype:
        before, after = (f"in {plan.rest.dtype}" if plan.rest.dtype else "unchanged" for plan in (old, new))
        notes.append(f"unquantized tensors are stored {before} in the old plan and {after} in the new one")
    if old.quantizer != new.quantizer:
        notes.append(f"the quantizer changed from {old.quantizer} to {new.quantizer}")
    if old.budget != new.budget:
        notes.append(f"the budget changed from {old.budget or 'none'} to {new.budget or 'none'}")
    if old.activations != new.activations:
        before, after = (summary(plan.activations) for plan in (old, new))
        notes.append(f"activations changed: {before} in the old plan, {after} in the new one" + ("" if before != after else ", others"))
    if old.sketches != new.sketches:
        before, after = (f"{sketch_bytes(plan.sketches):,} bytes" for plan in (old, new))
        notes.append(f"sketches for `mpq monitor` take {before} in the old plan and {after} in the new one")
    for text, plan in (("old", old), ("new", new)):
        if plan.evidence and not plan.evidence_is_current:
            notes.append(f"the layers of the {text} plan were edited after it was measured: its measured errors are left out")
    return notes
