"""`mpq export`: a plan or an artifact becomes what another program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli import complete
from mpq.cli.card_inputs import HUB, with_card
from mpq.cli.console import print_json, print_lines, print_table, say
from mpq.cli.options import Factory, Json, Trust
from mpq.errors import UsageError
from mpq.export.registry import TARGETS

_TARGETS = "; ".join(f"{name}: {summary}" for name, summary in TARGETS.items())


def command(
    source: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|PLAN", help="What `mpq apply` wrote; for targets without weights, a plan will do.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", autocompletion=complete.named(TARGETS), help=f"Where to. {_TARGETS}.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder. [default: beside the source, named after it]")
    ] = None,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Where the target lacks a layer's scheme, take the next larger one that holds its values.")
    ] = False,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Inputs, two samples are enough; only for models that bring none.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="The original model, if it is not where the source says.")
    ] = None,
    allow_unfused: Annotated[
        bool, typer.Option("--allow-unfused", help="Let layers that vLLM fuses take different schemes; other programs do not mind.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="If the target's runtime is installed, run the export and the artifact on the same inputs, "
            "and refuse the export if their outputs differ.",
        ),
    ] = True,
    fingerprint: Annotated[
        bool,
        typer.Option(
            "--fingerprint/--no-fingerprint",
            help="Write NAME.fingerprint.json beside the export: what it should hold and compute, for `mpq verify`.",
        ),
    ] = True,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="ORG/NAME", help="For huggingface: the original model on the hub, for the model card."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For huggingface: what `mpq eval --json` printed for the artifact, for the model card."),
    ] = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write a plan or an artifact for another program.

    A scheme that the target does not have is an error that lists the layers. With --nearest each takes the next larger one, and is
    printed: more bytes for the same weights, except that a layer which no integers of the target hold is rounded to fp16.

    Example: mpq export model.mpq.safetensors --to onnx
    """
    from mpq.export.base import Options
    from mpq.export.run import export

    options = Options(data, model, fused=not allow_unfused, factory=factory, trust=trust, compare=compare, fingerprint=fingerprint)
    if to == HUB:
        options = with_card(options, source, base_model=base_model, evaluation=evaluation)
    elif base_model is not None or evaluation is not None:
        raise UsageError(f"--base-model and --evaluation are for the model card of {HUB}: leave them out with --to {to}")
    done = export(source, to, output, nearest=nearest, options=options)
    if json:
        replaced = {name: [str(old), str(new)] for name, (old, new) in done.replaced.items()}
        print_json(
            {**vars(done), "path": str(done.path), "layer_bytes": list(done.layer_bytes), "replaced": replaced, "notes": list(done.notes)}
        )
        return
    if done.replaced:
        rows = [[name, str(old), str(new)] for name, (old, new) in done.replaced.items()]
        before, after = done.layer_bytes
        print_table(["layer", "plan", to], rows, title=f"{len(rows)} layers take the next larger scheme: {before:,} bytes become {after:,}")
    print_lines([f"{done.path}: {done.bytes:,} bytes" + (f", beside {done.source_bytes:,} of the artifact" if done.weights else "")])
    for note in done.notes:
        say(note)
