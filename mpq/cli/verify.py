"""`mpq verify`: does another program load an export correctly?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, say
from mpq.cli.options import Json, Trust
from mpq.verify.programs.registry import PROGRAMS


def command(
    file: Annotated[Path, typer.Argument(metavar="EXPORT|ARTIFACT", help="What `mpq export` wrote, or what `mpq apply` wrote.")],
    program: Annotated[
        str | None,
        typer.Option("--with", metavar="PROGRAM", help=f"Program that loads it: {PROGRAMS.described()}. [default: that of its target]"),
    ] = None,
    fingerprint: Annotated[
        Path | None, typer.Option("--fingerprint", metavar="FILE", help="The fingerprint file. [default: EXPORT.fingerprint.json]")
    ] = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Load an export in the program that will run it, and check that it loads correctly; exit 1 if not.

    The program runs in a separate process. Codes, scales and other tensors are compared by checksum, the program's dequantized weights
    value by value, and its outputs on fixed inputs within the tolerance of its arithmetic. A difference is reported with the first layer
    that has it: scales swapped, groups in a different order, nibbles swapped, a layer that runs unquantized, tensors not loaded, a tie
    lost.

    Example: mpq verify model.onnx --with onnxruntime
    """
    from mpq.verify.run import verify

    found = verify(file, program, fingerprint=fingerprint, trust=trust)
    if json:
        print_json(found.to_dict())
    else:
        print_lines([f"{'ok  ' if found.passed else 'FAIL'}  {found.line}"])
        print_lines([f"        {each.kind} in '{each.name}': {each.message}" for each in found.findings[1:]])
        for note in found.notes:
            say(note)
    if not found.passed:
        raise typer.Exit(1)
