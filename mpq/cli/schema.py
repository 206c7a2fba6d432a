"""`mpq schema`: the JSON schema of a file that people write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import say
from mpq.errors import UsageError
from mpq.schemas import NAMES, schema


def command(
    name: Annotated[str, typer.Argument(help="plan, config or budgets.")] = "plan",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: print it]")] = None,
) -> None:
    """Print the JSON schema of a plan, a configuration or a budgets file, so that editors complete and check them.

    Put the schema next to a YAML file and add the line "# yaml-language-server: $schema=plan.schema.json" at the top of that file. Most
    editors need no more.

    Example: mpq schema plan -o plan.schema.json
    """
    if name not in NAMES:
        raise UsageError(f"'{name}' has no schema: use {', '.join(NAMES)}")
    text = json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    from mpq.files import write_text

    write_text(output, text)
    say(f"wrote {output}; start a YAML file with: # yaml-language-server: $schema={output.name}")
