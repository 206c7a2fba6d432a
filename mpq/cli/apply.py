"""`mpq apply`: a plan becomes an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, progress, say
from mpq.cli.options import Json, Trust
from mpq.cli.sources import check_output, reopen_data, reopen_model, stem_of
from mpq.errors import FormatError


def command(
    plan: Annotated[Path, typer.Argument(help="The plan.")] = Path("plan.yaml"),
    model: Annotated[Path | None, typer.Option("--reference", metavar="MODEL", help="The model, if it is not where the plan says.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: MODEL.mpq.safetensors beside the plan]")] = None,
    allow_unchanged: Annotated[
        bool, typer.Option("--allow-unchanged", help="Accept layers that already lie on their scheme's grid.")
    ] = False,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write the packed, smaller model that a plan describes.

    The model is found through the plan and checked by its hash; the file has exactly the size that the plan predicts.

    Example: mpq apply plan.yaml
    """
    if not plan.exists():
        raise FormatError(f"{plan} does not exist: run `mpq search` first, or name the plan")

    from mpq.records.plan import read_plan

    wanted = read_plan(plan)

    from mpq.apply.run import apply
    from mpq.tensors.quantizers.registry import quantizer_named

    loaded = reopen_model(wanted.model, plan, given=model, trust=trust)
    data = reopen_data(wanted.data, plan, loaded) if wanted.data and quantizer_named(wanted.quantizer).needs_statistics else None
    target = output or plan.with_name(f"{stem_of(loaded.path or plan)}.mpq.safetensors")
    check_output(target)
    with progress("apply") as advance:
        done = apply(loaded, wanted, target, data=data, allow_unchanged=allow_unchanged, on_progress=advance)
    size = wanted.size
    if json:
        print_json({"output": str(done.path), "file_bytes": done.file_bytes, "original_bytes": done.original_bytes, "size": vars(size)})
        return
    print_lines(
        [
            f"{done.path}: {done.file_bytes:,} bytes, as predicted",
            f"{done.original_bytes / done.file_bytes:.2f} times smaller than the {done.original_bytes:,} bytes of parameters and buffers",
            f"{size.effective_bits:.4g} bits per weight over the layers, {size.file_effective_bits:.4g} over the file",
        ]
    )
    say(f"next: mpq eval {done.path} --data FILE; in Python: mpq.load('{done.path}')")
