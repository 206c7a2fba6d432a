"""The text of the report: tiles, verdict, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mpq.evidence.self_check import self_check_warnings
from mpq.models.running.metric_registry import METRICS
from mpq.report.report_input import Subject
from mpq.report.rows import NOISE, Facts
from mpq.report.words import TIMES, change, count, figure, noise, share, size
from mpq.shown import bits_text, printable


@dataclass(frozen=True)
class Tile:
    """A headline value: its name, the value, and a line below it."""

    name: str
    value: str
    note: str


def metric_name(subject: Subject) -> str:
    """The metric in words."""
    return METRICS.get(str(subject.metric), printable(str(subject.metric or "error")))


def tiles(subject: Subject, facts: Facts) -> list[Tile]:
    """The headline values."""
    if subject.plan is not None:
        return list(_plan_tiles(subject))
    if subject.artifact is not None:
        return list(_artifact_tiles(subject, facts))
    return list(_table_tiles(subject, facts))


def verdict(subject: Subject) -> str:
    """One sentence: what was decided and why."""
    decision = str(subject.evidence.get("decision", ""))
    if decision:
        return f"Chosen: {decision}."
    if subject.plan is not None:
        return "This plan has not been measured as a whole; its error is the sum of the errors of its layers alone."
    if subject.table is not None:
        return "No plan yet: move the slider below to see the best plan of any size."
    return "An artifact: its contents, layer by layer."


def warnings(subject: Subject) -> list[str]:
    """What the reader must know before trusting the values."""
    found = []
    if subject.plan is not None and subject.plan.evidence and not subject.plan.evidence_is_current:
        found.append("The layers were edited after the plan was measured: its measurements are left out. Run mpq search or mpq eval again.")
    if subject.table is not None:
        method = str(subject.table.header.settings["method"])
        found += [f"{line[0].upper()}{line[1:]}." for line in self_check_warnings(subject.table.finish, method=method)]
    data = subject.plan.data if subject.plan else subject.table.header.data if subject.table else {}
    found += [f"{str(data[name])[0].upper()}{str(data[name])[1:]}." for name in ("caution", "shift") if data.get(name)]
    reach = str(subject.plan.evidence.get("reach", "")) if subject.plan is not None else ""
    found += [f"{reach[0].upper()}{reach[1:]}."] if reach else []
    if subject.table is not None and subject.table.missing:
        missing, whole = len(subject.table.missing), len(subject.table.missing) + len(subject.table.errors)
        found.append(f"The analysis is unfinished: {missing:,} of {whole:,} values are missing. Run mpq analyze again; it resumes.")
    strays = [name for name, scheme in subject.schemes.items() if subject.table and (name, scheme) not in subject.table.errors]
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        found.append(f"{strays[0]}{more}: the chosen scheme was not measured, so the plan's predicted error is not known.")
    return found


def noise_text(facts: Facts) -> str:
    """How many values are within noise."""
    noisy, whole = facts.noisy
    return f"{noisy:,} of {count(whole, 'value')} are within {NOISE:g} standard errors of zero"


def settled(subject: Subject) -> list[dict[str, Any]]:
    """Layers whose chosen scheme is not significantly better than the next cheaper one on the same samples."""
    table = subject.table
    if table is None:
        return []
    found = []
    for layer in table.layers:
        scheme = subject.schemes.get(layer.name)
        if scheme is None or (layer.name, scheme) not in table.errors:
            continue
        own = scheme.stored_bits(layer.matrix)
        cheaper = [c for c in table.header.candidates[layer.name] if (layer.name, c) in table.errors and c.stored_bits(layer.matrix) < own]
        if not cheaper:
            continue
        nearest = max(cheaper, key=lambda c: c.stored_bits(layer.matrix))
        ours, theirs = table.errors[layer.name, scheme], table.errors[layer.name, nearest]
        if len(ours) != len(theirs) or len(ours) < 2:
            continue
        gain = theirs - ours
        stderr = float(gain.std(ddof=1) / len(gain) ** 0.5)
        if float(gain.mean()) <= NOISE * stderr:
            saved = (own - nearest.stored_bits(layer.matrix)) // 8
            gained = f"{figure(float(gain.mean()))} {noise(stderr)}"
            found.append({"layer": layer.name, "scheme": str(scheme), "cheaper": str(nearest), "gain": gained, "saved": size(saved)})
    return found


def details(subject: Subject) -> list[tuple[str, str]]:
    """How the values were obtained: name and value, for the end of the page."""
    model = subject.model
    found = [
        ("report of", subject.source),
        ("model", f"{model.get('path', 'in memory')} ({model.get('kind')})"),
        ("sha256", str(model.get("sha256"))),
    ]
    if subject.table is not None:
        header = subject.table.header
        samples: Mapping[str, Any] = header.data.get("samples", {})
        split = f"; {samples['calibration']} for calibration, {samples['held_out']} held out" if samples else ""
        found.append(("data", f"{header.data.get('description', '')}{split}"))
        found.append(("method", ", ".join(f"{name} {value}" for name, value in header.settings.items())))
        found += [("note", note) for note in header.notes]
        found.append(("made with", ", ".join(f"{name} {value}" for name, value in header.versions.items())))
    elif subject.plan is not None:
        found.append(("quantizer", subject.plan.quantizer))
    return [(name, value) for name, value in found if value]


def _plan_tiles(subject: Subject) -> Iterable[Tile]:
    plan = subject.plan
    assert plan is not None
    held = plan.size
    whole = plan.original_bytes + plan.rest.original_bytes
    yield Tile("File", size(held.file_bytes), f"{whole / held.file_bytes:.3g}{TIMES} smaller than {size(whole)}")
    limit = f"; budget {plan.budget}" if plan.budget else ""
    yield Tile(
        "Bits per weight", bits_text(held.effective_bits), f"over the layers, {bits_text(held.file_effective_bits)} over the file{limit}"
    )
    yield _unsearched_tile(held.file_bytes, held.layer_bytes, plan.rest.dtype)
    yield from _error_tiles(subject)


def _unsearched_tile(file_bytes: int, layer_bytes: int, dtype: str | None) -> Tile:
    stored = f" in {dtype}" if dtype is not None else ""
    part = share(file_bytes - layer_bytes, file_bytes)
    return Tile("Not searched", size(file_bytes - layer_bytes), f"{part} of the file: unquantized tensors{stored}, program, header")


def _error_tiles(subject: Subject) -> Iterable[Tile]:
    evidence, name = subject.evidence, metric_name(subject)
    chosen = subject.frontier.chosen if subject.frontier else None
    predicted = chosen.predicted if chosen else evidence.get("predicted")
    measured: Mapping[str, Any] = evidence.get("measured", {})
    held, stderr = measured.get("held_out"), measured.get("held_out_stderr")
    if held is not None:
        yield Tile("Error on held-out data", figure(held), f"{noise(stderr)} {name}; predicted {figure(predicted)}".strip())
    elif predicted is not None:
        yield Tile("Predicted error", figure(predicted), f"{name}, not measured as a whole")
    yield from _evaluation_tiles(subject)
    best: Mapping[str, Any] = evidence.get("best_uniform", {})
    if held is not None and best.get("held_out"):
        text = f"{figure(best['held_out'])} of uniform {best['scheme']} at {bits_text(best['effective_bits'])} bits"
        yield Tile("Against the best uniform", change(held, best["held_out"]), f"error, from {text}")
    gap = evidence.get("optimality_gap")
    if gap is not None and held is None:
        yield Tile("Proof", "optimal" if gap == 0 else f"within {gap:.2%}", "for the table, under this budget")


def _evaluation_tiles(subject: Subject) -> Iterable[Tile]:
    """The results of `mpq eval` on data that took no part in any decision: accuracy and divergence."""
    found = subject.evaluation
    if found is None:
        return
    known = {each.name: each for each in found.figures}
    where = f"on {found.samples:,} samples of {printable(found.source)}"
    for name, title in (("accuracy", "Accuracy"), ("perplexity", "Perplexity")):
        if (each := known.get(name)) is not None and each.reference is not None:
            value, before = (f"{v:.2%}" if name == "accuracy" else figure(v) for v in (each.quantized, each.reference))
            yield Tile(title, value, f"original {before}, {where}")
    if (each := known.get("kl_divergence")) is not None:
        yield Tile("KL divergence, test data", figure(each.quantized), f"{noise(each.stderr)} {where}".strip())


def _artifact_tiles(subject: Subject, facts: Facts) -> Iterable[Tile]:
    total, weights = sum(row.bytes or 0 for row in facts.rows), sum(row.weights for row in facts.rows)
    original = sum(layer.original_bytes for layer in subject.layers)
    if subject.artifact_bytes is not None:
        yield Tile("File", size(subject.artifact_bytes), f"{subject.artifact_bytes:,} bytes on disk")
        assert subject.artifact is not None
        yield _unsearched_tile(subject.artifact_bytes, total, subject.artifact.rest_dtype)
    yield Tile("Layers", size(total), f"{original / total:.3g}{TIMES} smaller than {size(original)}")
    yield Tile("Bits per weight", f"{8 * total / weights:.4g}", f"over {count(weights, 'weight')} of the layers")
    yield from _error_tiles(subject)


def _table_tiles(subject: Subject, facts: Facts) -> Iterable[Tile]:
    assert subject.table is not None
    weights = sum(layer.weights for layer in subject.layers)
    yield Tile("Layers", f"{len(subject.layers):,}", f"{count(weights, 'weight')}")
    yield Tile("Figures", f"{len(subject.table.errors):,}", noise_text(facts).split(" of ")[0] + " within noise of zero")
    if subject.frontier is not None:
        first, last = subject.frontier.points[0], subject.frontier.points[-1]
        yield Tile(
            "Smallest plan",
            size(first.file_bytes),
            f"{bits_text(first.effective_bits)} bits per weight, predicted {figure(first.predicted)}",
        )
        yield Tile("Least error", figure(last.predicted), f"{metric_name(subject)} at {bits_text(last.effective_bits)} bits per weight")
