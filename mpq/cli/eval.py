"""`mpq eval`: compares the quantized model with the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import figure, print_json, print_table, warn
from mpq.cli.eval_artifact import evaluate_artifact
from mpq.cli.options import (
    BatchAxis,
    BatchSize,
    Device,
    Factory,
    Json,
    Mask,
    NumSamples,
    Reference,
    SeedEachForward,
    SeqLen,
    TextField,
    Trust,
)
from mpq.config import DataSettings


def command(
    artifact: Annotated[Path, typer.Argument(help="What `mpq apply` wrote.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Inputs, optionally with labels; read like `mpq analyze --calib`.")],
    model: Reference = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The artifact's plan, whose held-out error is compared. [default: the one next to the artifact]"),
    ] = None,
    seq_len: SeqLen = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = None,
    mask: Mask = None,
    batch_axis: BatchAxis = None,
    text_field: TextField = None,
    seed_each_forward: SeedEachForward = False,
    outputs: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Outputs to compare, by name or glob. [default: all that are not computed from others]"),
    ] = None,
    device: Device = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Compare the quantized model with the reference on your data.

    KL divergence and top-1 agreement if the output is logits; relative MSE and cosine always; accuracy and loss if there are labels;
    perplexity for a language model.

    Example: mpq eval resnet20.mpq.safetensors --data test.pt
    """
    from mpq.cli.find_plan import plan_of
    from mpq.evaluate.beyond_plan import beyond_plan

    settings = DataSettings(
        seq_len=seq_len,
        num_samples=num_samples,
        batch_size=batch_size,
        mask=mask,
        seed_each_forward=seed_each_forward,
        batch_axis=batch_axis,
        text_field=text_field,
    )
    known = plan_of(artifact, given=plan)
    found = evaluate_artifact(artifact, data, settings, reference=model, factory=factory, outputs=outputs or (), trust=trust, device=device)
    if known is not None and (line := beyond_plan(found, known[1].evidence, plan=known[0].name)) is not None:
        warn(line)
    if found.caution is not None:
        warn(found.caution)
    for note in found.notes:
        warn(note)
    if json:
        from mpq.records.artifact_files import read_header
        from mpq.records.plan import assignment_of

        header = read_header(artifact)
        print_json({"artifact": artifact.name, "assignment": assignment_of(header.schemes, header.activations), **found.to_dict()})
        return
    rows = [[f.name, figure(f.reference), figure(f.quantized, f.stderr)] for f in found.figures]
    print_table(["metric", "reference", "quantized"], rows, title=f"{artifact.name} on {found.samples} samples")
