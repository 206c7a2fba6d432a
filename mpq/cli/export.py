"""`mpq export`: a plan or an artifact becomes what another program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli import complete
from mpq.cli.card_inputs import HUB, with_card
from mpq.cli.console import print_json, print_lines, print_table, say
from mpq.cli.options import Factory, Json, Reference, Trust
from mpq.errors import FormatError, UsageError
from mpq.export.registry import TARGETS

_TARGETS = "; ".join(f"{name}: {summary}" for name, summary in TARGETS.items())


def command(
    source: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|PLAN", help="What `mpq apply` wrote; a plan is enough for targets without weights.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", autocompletion=complete.named(TARGETS), help=f"The target. {_TARGETS}.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write. [default: next to the source, named after it]")
    ] = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest", help="If the target does not support a layer's scheme, use the next larger one that represents its values."
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Inputs; two samples are enough. Only for models without example inputs.")
    ] = None,
    model: Reference = None,
    allow_unfused: Annotated[
        bool, typer.Option("--allow-unfused", help="Allow different schemes for layers that vLLM fuses; other programs accept them.")
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
            help="Write NAME.fingerprint.json next to the export, for `mpq verify`: what the export should hold and compute.",
        ),
    ] = True,
    symmetric: Annotated[
        bool,
        typer.Option("--symmetric", help="For onnx: give integer activations ranges around 0 and int8 codes, as TensorRT takes them."),
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="ORG/NAME", help="For huggingface: the original model on the hub, for the model card."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For huggingface: the output of `mpq eval --json` for the artifact, for the model card."),
    ] = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write a plan or an artifact for another program.

    If the target does not support a scheme, the command stops and lists the layers. With --nearest, each of them uses the next larger
    scheme, and the change is printed: more bytes for the same weights. A layer that fits no integer format of the target is rounded to
    fp16.

    Example: mpq export model.mpq.safetensors --to onnx
    """
    if not source.exists():
        raise FormatError(f"{source} does not exist: run `mpq apply` first, or name an artifact or a plan")

    from mpq.export.base import Options
    from mpq.export.run import export

    TARGETS.kind(to)
    options = Options(
        data,
        model,
        fused=not allow_unfused,
        factory=factory,
        trust=trust,
        compare=compare,
        fingerprint=fingerprint,
        symmetric=symmetric,
    )
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
        print_table(["layer", "plan", to], rows, title=f"{len(rows)} layers use the next larger scheme: {before:,} bytes become {after:,}")
    print_lines([f"{done.path}: {done.bytes:,} bytes" + (f"; the artifact has {done.source_bytes:,}" if done.weights else "")])
    for note in done.notes:
        say(note)
