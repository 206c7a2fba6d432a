"""Plans and artifacts of three layers, without torch, and a git repository that holds the current folder."""

import subprocess
from dataclasses import replace
from pathlib import Path

from mpq.budget import Budget
from mpq.formats.scheme import parse_scheme
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_layout import entry, layer_entries
from mpq.records.plan import Plan, plan_for
from tests.small import linear, table

LAYERS = [linear("embed", 64, 64), linear("block.0", 64, 64), linear("head", 8, 64)]
TABLE = table(LAYERS, {layer.name: {"int4": 0.5, "int8": 0.1} for layer in LAYERS})


def plan_of(schemes: str, held_out: float | None = 0.1, *, budget: Budget | None = None) -> Plan:
    """A plan of the schemes, one for each layer, with a measured error."""
    found = {layer.name: parse_scheme(text) for layer, text in zip(LAYERS, schemes.split(), strict=True)}
    made = plan_for(LAYERS, found, model=TABLE.header.model, quantizer="rtn", rest=TABLE.header.rest)
    measured = {"assignment": made.assignment, "metric": "kl_divergence", "measured": {"held_out": held_out}}
    return replace(made, evidence=measured, budget=budget)


def write_artifact(plan: Plan, path: Path) -> int:
    """Write an artifact of the plan's schemes, with a norm of 10 float32 and zeros for all contents; its bytes."""
    entries = [entry("norm", "F32", (10,))]
    for layer in LAYERS:
        entries += layer_entries(layer.name, layer.matrix, plan.layers[layer.name])
    header = ArtifactHeader(plan.model, plan.quantizer, tuple(LAYERS), plan.layers, {}, {})
    content = header.first_bytes(entries) + bytes(sum(each.stored.bytes for each in entries))
    path.write_bytes(content)
    return len(content)


def commit(folder: Path | None = None) -> None:
    """Commit all files of a folder, the current one if none is named."""
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "Add"]):
        subprocess.run(["git", *words], check=True, cwd=folder)
