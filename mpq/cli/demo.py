"""`mpq demo`: all steps on a trained model that ships with mpq."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mpq.budget import Budget
from mpq.cli.console import print_lines, say, voice


def command(
    name: Annotated[str, typer.Argument(help="digits (a small CNN) or chars (a character-level language model).")] = "digits",
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the files in this folder. [default: a temporary folder]")
    ] = None,
    budget: Annotated[str, typer.Option(help="The size limit.")] = "4.5bits",
) -> None:
    """Run all steps on a trained model that ships with mpq: no network, under a minute.

    Each step prints its command, which you can copy.

    Example: mpq demo chars --budget 5bits --keep demo
    """
    from mpq.demo import write_demo

    Budget(budget)  # refused at once, not after the analysis
    with _folder(keep) as folder:
        write_demo(name, folder)
        before = Path.cwd()
        os.chdir(folder)
        try:
            _steps(budget)
        finally:
            os.chdir(before)
        print_lines(["", f"files are in {keep}" if keep else "the files were temporary; --keep FOLDER keeps them"])
        say("next: mpq analyze YOUR_MODEL --calib YOUR_DATA")


def _steps(budget: str) -> None:
    from mpq.cli.main import app

    for step in (
        "analyze model.pt2 --calib calibration.pt",
        f"search --budget {budget}",
        "apply plan.yaml",
        f"check plan.yaml --budget {budget}",
        "eval model.mpq.safetensors --data test.pt",
    ):
        print_lines(["", f"$ mpq {step}"])
        code = app([*(["--quiet"] if voice.quiet else []), *shlex.split(step)], standalone_mode=False)
        if code:
            raise typer.Exit(code)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The folder of the demo's files: `keep`, or a temporary one."""
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="mpq-demo-") as temporary:
        yield Path(temporary)
