"""`mpq merge`: sensitivity files of the same analysis become one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, say, suggest
from mpq.cli.find_inputs import check_output
from mpq.cli.options import Json
from mpq.writing.locks import held


def command(
    files: Annotated[list[Path], typer.Argument(help="Sensitivity files of the same analysis.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The sensitivity file to write.")],
    json: Json = False,
) -> None:
    """Join the sensitivity files of an analysis that several machines made, by layer, scheme and sample.

    Each machine runs the same command with its own part, such as mpq analyze model.pt2 --part 1/2. Files of another analysis, and
    different values for the same sample, are refused. The same mpq analyze without --part, with the joined file as its output, does
    the rest: what is missing, and the self-check.

    Example: mpq merge part1.jsonl part2.jsonl -o model.sensitivity.jsonl
    """
    from mpq.analyze.merge import merge

    check_output(output)
    with held(output, work="merge"):
        done = merge(files, output)
    table = done.table
    pairs = sum(len(schemes) for schemes in table.header.candidates.values())
    if json:
        facts = {"output": str(output), "files": len(files), "pairs": done.covered, "all_pairs": pairs}
        print_json({**facts, "repeated": done.repeated, "missing": [f"{layer.name} {scheme}" for layer, scheme in table.missing]})
        return
    print_lines([f"{output}: {done.covered:,} of {pairs:,} pairs of layer and scheme, from {len(files)} files"])
    if done.repeated:
        say(f"{done.repeated:,} values were in several files; each counts once")
    suggest(f"mpq analyze {table.header.model.get('path') or 'MODEL'} … -o {output}, with the options of the parts and without --part")
