"""`mpq show`: what a file is and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mpq.cli.console import figure, print_json, print_lines, print_table
from mpq.cli.options import Json
from mpq.errors import FormatError


def command(
    file: Annotated[Path, typer.Argument(help="A sensitivity file, a plan, or an artifact.")],
    json: Json = False,
) -> None:
    """Say what any mpq file is and what is in it.

    Example: mpq show plan.yaml
    """
    from mpq.records.artifact import is_artifact

    if not file.is_file():
        raise FormatError(
            f"cannot read {file}: {'it is a folder' if file.is_dir() else 'no such file'}; name a sensitivity file, a plan or an artifact"
        )
    if is_artifact(file):
        facts, columns, rows = _artifact(file)
    elif _starts_with(file, b"{"):
        facts, columns, rows = _sensitivity(file)
    else:
        facts, columns, rows = _plan(file)
    if json:
        print_json({**facts, "layers": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    print_lines([f"{name}: {value}" for name, value in facts.items()])
    print_table(columns, rows)


def _starts_with(file: Path, first: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(first)) == first


def _plan(file: Path) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    from mpq.records.plan import read_plan

    plan = read_plan(file)
    size, evidence = plan.size, plan.evidence
    facts: dict[str, Any] = {
        "file": f"{file}, a plan for {plan.model.get('path', 'a model in memory')}",
        "budget": str(plan.budget) if plan.budget else "none",
        "size": f"{size.effective_bits:.4g} bits per weight over the layers ({size.layer_bytes:,} bytes), "
        f"{size.file_effective_bits:.4g} over the file ({size.file_bytes:,} bytes)",
        "quantizer": plan.quantizer,
    }
    if evidence:
        facts["evidence"] = str(evidence.get("decision", "")) if plan.evidence_is_current else "of other schemes: the layers were edited"
        facts["error"] = f"{evidence.get('metric')} {figure(evidence.get('measured', {}).get('held_out'))} on held-out samples"
    rows = [
        [
            name,
            str(scheme),
            f"{scheme.stored_bits(plan.shapes[name]) / (plan.shapes[name][0] * plan.shapes[name][1]):.3f}",
            "x".join(map(str, plan.shapes[name])),
        ]
        for name, scheme in plan.layers.items()
    ]
    return facts, ["layer", "scheme", "bpw", "shape"], rows


def _artifact(file: Path) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    from mpq.records.artifact import read_artifact_header
    from mpq.records.sensitivity import layer_bytes

    header = read_artifact_header(file)
    total = layer_bytes(header.layers, header.schemes)
    weights = sum(layer.weights for layer in header.layers)
    facts: dict[str, Any] = {
        "file": f"{file}, an artifact of {header.model.get('path', 'a model in memory')} ({header.model.get('kind')})",
        "size": f"{file.stat().st_size:,} bytes; {8 * total / weights:.4g} bits per weight over the layers ({total:,} bytes)",
        "quantizer": header.quantizer,
        "load": f"mpq.load('{file}')" if header.model.get("kind") in ("export", "hf") else f"mpq.load('{file}', module)",
    }
    rows = [
        [
            layer.name,
            str(header.schemes[layer.name]),
            f"{header.schemes[layer.name].stored_bits(layer.matrix) / layer.weights:.3f}",
            "x".join(map(str, layer.shape)),
        ]
        for layer in header.layers
    ]
    return facts, ["layer", "scheme", "bpw", "shape"], rows


def _sensitivity(file: Path) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(file)
    header = table.header
    samples = header.data["samples"]
    facts: dict[str, Any] = {
        "file": f"{file}, the sensitivities of {header.model.get('path', 'a model in memory')}",
        "figures": f"{len(table.errors)} measured, {len(table.missing)} missing",
        "metric": f"{table.metric}, method {header.settings['method']}, quantizer {header.settings['quantizer']}",
        "data": f"{header.data['description']}; {samples['calibration']} for calibration, {samples['held_out']} held out",
    }
    rows = [
        [row["layer"], row["scheme"], f"{row['effective_bits']:.3f}", figure(row["error"], row["stderr"])]
        for row in table.frame().to_dict("records")
    ]
    return facts, ["layer", "scheme", "bpw", "error"], rows
