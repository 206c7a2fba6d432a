"""`mpq show`: what a file is and what is in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mpq.cli.console import fallback_lines, figure, print_json, print_lines, print_table, say
from mpq.cli.options import Cache, Device, Dtype, Factory, Json, Reference, Trust, dtype_of
from mpq.errors import UsageError
from mpq.shown import bits_cell, bits_text

_BAR = "bits per weight"


@dataclass(frozen=True)
class Shown:
    """The description of a file, for people and for programs.

    Args:
        facts: for people, by name.
        data: the same for programs.
        rows: one per layer, or per layer and scheme, for programs.
        cells: rows for people, by column.
    """

    facts: dict[str, str]
    data: dict[str, Any]
    rows: list[dict[str, Any]]
    cells: Callable[[dict[str, Any]], dict[str, str]]


def command(
    file: Annotated[Path, typer.Argument(help="A sensitivity file, a plan, or an artifact.")] = Path("plan.yaml"),
    kernels: Annotated[
        bool, typer.Option("--kernels", help="For an artifact: which kernel runs each layer after mpq.load(..., packed=True), and why.")
    ] = False,
    dtype: Dtype = None,
    limit: Annotated[
        bool,
        typer.Option(
            "--limit",
            help="For a plan: the theoretical minimum of bits per weight for each layer's output error. It uses the model, the "
            "calibration data, and what the analysis kept in its cache.",
        ),
    ] = False,
    model: Reference = None,
    cache: Cache = None,
    device: Device = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Show what any mpq file is and what is in it.

    Example: mpq show plan.yaml
    """
    from mpq.records.file_kind import kind_of

    kind = kind_of(file)
    for_limit = {"--reference": model, "--cache": cache, "--device": device, "--builder": factory, "--trust": trust or None}
    for option, on, values in (("--limit", limit, for_limit), ("--kernels", kernels, {"--dtype": dtype})):
        given = [name for name, value in values.items() if value is not None]
        if given and not on:
            raise UsageError(f"{given[0]} only affects {option}: add {option}, or leave {given[0]} out")
    if limit:
        from mpq.cli.show_limit import show_limit

        if kernels:
            raise UsageError("--limit is for plans, and --kernels for artifacts: give one of them")
        show_limit(file, kind, model=model, cache=cache, device=device, factory=factory, trust=trust, json=json)
        return
    if kernels:
        _show_kernels(file, kind, dtype, json=json)
        return
    shown = {"artifact": _artifact, "sensitivity": _sensitivity, "plan": _plan}[kind](file)
    if json:
        print_json({"file": str(file), "kind": kind, **shown.data, "layers": shown.rows})
        return
    print_lines([f"{name}: {value}" for name, value in shown.facts.items()])
    cells = [shown.cells(row) for row in shown.rows]
    if cells:
        print_table(list(cells[0]), [list(row.values()) for row in cells], left=[_BAR])


def _show_kernels(file: Path, kind: str, dtype: str | None, *, json: bool) -> None:
    if kind != "artifact":
        raise UsageError(f"{file} is not an artifact, which --kernels needs: run `mpq apply`, then name what it wrote")
    from mpq.records.artifact_files import read_header
    from mpq.runtime.kernels import SAMPLES, cpu, faster_in_bfloat16, kernels_of

    header = read_header(file)
    rows = kernels_of(header, dtype_of(dtype))
    if json:
        print_json({"file": str(file), "kind": kind, "cpu": cpu(), "layers": rows})
        return
    columns = ["layer", "scheme", *(f"{samples} rows" if samples > 1 else "1 row" for samples in SAMPLES)]
    print_table(columns, [[row["layer"], row["scheme"], *row["kernels"].values()] for row in rows])
    reasons = {name: reason for row in rows for name, reason in row["reasons"].items()}
    print_lines([f"{name}: {reason}" for name, reason in sorted(reasons.items())])
    print_lines([f"for inputs in {' and '.join(sorted({row['dtype'] for row in rows}))} on this CPU, which has {cpu()}"])
    if dtype is None and faster_in_bfloat16(header):
        say(f"faster kernels here compute in bfloat16: mpq show {file} --kernels --dtype bf16; mpq.load(..., dtype=torch.bfloat16)")


def _plan(file: Path) -> Shown:
    from mpq.records.activations import summary, to_dict
    from mpq.records.plan import read_plan
    from mpq.records.stored_sketches import sketch_bytes
    from mpq.records.unsearched import unsearched_line

    plan = read_plan(file)
    size, evidence = plan.size, plan.evidence
    facts = {
        "file": f"{file}, a plan for {plan.model.get('path') or 'a model in memory'}",
        "budget": str(plan.budget) if plan.budget else "none",
        "size": f"{bits_text(size.effective_bits)} bits per weight over the layers ({size.layer_bytes:,} bytes), "
        f"{bits_text(size.file_effective_bits)} over the file ({size.file_bytes:,} bytes)",
        "not searched": unsearched_line(size.file_bytes, size.layer_bytes, dtype=plan.rest.dtype).removeprefix("not searched: "),
        "quantizer": plan.quantizer,
        **({"activations": summary(plan.activations)} if plan.activations else {}),
        **_sketches(plan.sketches),
    }
    if evidence and plan.evidence_is_current:
        measured = evidence.get("measured", {})
        error = f"{figure(measured.get('held_out'), measured.get('held_out_stderr'))} on held-out samples"
        if measured.get("held_out") is None:
            error = f"{figure(evidence.get('predicted'))} predicted, not measured on held-out samples"
        facts |= {"evidence": str(evidence.get("decision", "")), "error": f"{evidence.get('metric')} {error}"}
    elif evidence:
        facts["evidence"] = "for other schemes: the layers were edited since; run `mpq search` again, or `mpq eval`"
    data = {
        "model": plan.model,
        "budget": vars(plan.budget) if plan.budget else None,
        "quantizer": plan.quantizer,
        "size": size.to_dict(),
        "evidence": evidence,
        "evidence_is_current": plan.evidence_is_current,
        **({"activations": to_dict(plan.activations)} if plan.activations else {}),
        **({} if plan.sketches is None else {"sketches": {"layers": list(plan.sketches), "bytes": sketch_bytes(plan.sketches)}}),
    }
    rows = [_row(name, scheme, plan.shapes[name], pinned=name in plan.pinned) for name, scheme in plan.layers.items()]
    return Shown(facts, data, rows, _cells)


def _sketches(layers: Sequence[str] | None) -> dict[str, str]:
    """How many tensors are sketched for `mpq monitor`, and in how many bytes."""
    from mpq.records.stored_sketches import MODEL, sketch_bytes

    if layers is None:
        return {}
    return {"sketches": f"{sketch_bytes(layers):,} bytes, of {len(MODEL) + len(layers)} tensors, for `mpq monitor`"}


def _artifact(file: Path) -> Shown:
    from mpq.records.activations import summary
    from mpq.records.artifact_files import artifact_bytes, read_header
    from mpq.records.sensitivity import layer_bytes
    from mpq.records.stands_alone import stands_alone
    from mpq.records.stored_sketches import sketch_bytes
    from mpq.records.unsearched import unsearched_line

    header = read_header(file)
    total, whole = layer_bytes(header.layers, header.schemes), artifact_bytes(file)
    bits = 8 * total / sum(layer.weights for layer in header.layers)
    facts = {
        "file": f"{file}, an artifact of {header.model.get('path') or 'a model in memory'} ({header.model.get('kind')})",
        "size": f"{whole:,} bytes; {bits_text(bits)} bits per weight over the layers ({total:,} bytes)",
        "not searched": unsearched_line(whole, total, dtype=header.rest_dtype).removeprefix("not searched: "),
        "quantizer": header.quantizer,
        "recovery": ", ".join(name.replace("_", " ") for name in header.recovery) or "none",
        **({"activations": summary(header.activations)} if header.activations else {}),
        **_sketches(None if header.sketches is None else header.sketches.layers),
        "load": f"mpq.load('{file}')" if stands_alone(header, file) else f"mpq.load('{file}', module)",
    }
    size = {"effective_bits": bits, "layer_bytes": total, "file_bytes": whole, "unsearched_bytes": whole - total}
    rows = [_row(layer.name, header.schemes[layer.name], layer.matrix) for layer in header.layers]
    if header.stopped:
        facts["stopped"] = f"{', '.join(header.stopped)} ran out of time: the artifact may differ on another machine"
    done: dict[str, Any] = {"recovery": list(header.recovery), "stopped": list(header.stopped)}
    if header.sketches is not None:
        done["sketches"] = {"layers": list(header.sketches.layers), "bytes": sketch_bytes(header.sketches.layers)}
    return Shown(facts, {"model": header.model, "quantizer": header.quantizer, **done, "size": size}, rows, _cells)


def _sensitivity(file: Path) -> Shown:
    from mpq.evidence.inversions import inversion_lines
    from mpq.evidence.self_check import self_check_lines, self_check_warnings
    from mpq.records.coverage import coverage_lines
    from mpq.records.measured_activations import activation_lines
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(file)
    header = table.header
    warned = self_check_warnings(table.finish, method=str(header.settings["method"]))
    samples = header.data.get("samples", {"calibration": "?", "held_out": "?"})
    facts = {
        "file": f"{file}, the sensitivities of {header.model.get('path') or 'a model in memory'}",
        **({"warning": " ".join(warned)} if warned else {}),
        "values": f"{len(table.errors)} measured, {len(table.missing)} missing",
        "metric": f"{table.metric}, method {header.settings['method']}, quantizer {header.settings['quantizer']}",
        "data": f"{header.data['description']}; {samples['calibration']} for calibration, {samples['held_out']} held out"
        if "description" in header.data
        else "none",
    }
    for number, line in enumerate(fallback_lines((table.finish or {}).get("fallbacks", {})), start=1):
        facts[f"fallback {number}"] = line
    facts |= {"order": " ".join(told)} if (told := inversion_lines(table)) else {}
    for number, line in enumerate(self_check_lines(table.finish), start=1):
        facts[f"check {number}"] = line
    for number, line in enumerate(activation_lines(table.finish, table.activations), start=1):
        facts[f"activations {number}"] = line
    for line in coverage_lines(table.finish):
        facts["coverage"] = line.removeprefix("coverage: ")
    data = {"model": header.model, "data": header.data, "settings": header.settings, "missing": len(table.missing), "finish": table.finish}
    return Shown(
        facts,
        data,
        [{str(key): value for key, value in row.items()} for row in table.frame().to_dict("records")],
        lambda row: {
            "layer": row["layer"],
            "scheme": row["scheme"],
            "bpw": bits_cell(row["effective_bits"]),
            "error": figure(row["error"], row["stderr"]),
        },
    )


def _row(name: str, scheme: Any, matrix: tuple[int, int], **more: Any) -> dict[str, Any]:
    bits = scheme.stored_bits(matrix)
    return {"layer": name, "scheme": str(scheme), "effective_bits": bits / (matrix[0] * matrix[1]), "bytes": bits // 8, **more}


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """A layer as a row; one block of the bar is one bit per weight."""
    block = "█" if "utf" in (sys.stdout.encoding or "").lower() else "#"
    return {
        "layer": row["layer"],
        "scheme": row["scheme"] + (" (pinned)" if row.get("pinned") else ""),
        "bpw": bits_cell(row["effective_bits"]),
        "bytes": f"{row['bytes']:,}",
        _BAR: block * round(row["effective_bits"]),
    }
