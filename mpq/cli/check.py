"""`mpq check`: the CI gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.budget import SCOPES
from mpq.cli.console import print_json, print_lines
from mpq.cli.options import Config, Json, merged
from mpq.errors import FormatError, UsageError


def command(
    file: Annotated[Path, typer.Argument(help="A plan or an artifact.")] = Path("plan.yaml"),
    budget: Annotated[str | None, typer.Option(help="Size limit: 4.5bits, 12MB, 30%. [default: the plan's own]")] = None,
    scope: Annotated[str | None, typer.Option(help="What the budget counts: layers or file. [default: the plan's own]")] = None,
    max_error: Annotated[float | None, typer.Option(help="Limit of the plan's held-out error, in its metric.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say whether a plan or an artifact keeps its budget; exit 1 if not.

    Sizes are computed from the plan's layers, not read from its text, so an edited plan is judged as it stands.

    Example: mpq check plan.yaml --budget 4.5bits --max-error 0.02
    """
    from mpq.check.run import check_file

    choices = merged("check", config, {"budget": budget, "scope": scope, "max_error": max_error})
    unknown = sorted(set(choices) - {"budget", "scope", "max_error"})
    if unknown:
        raise UsageError(f"'{unknown[0]}' is not a setting of check: use budget, scope, max_error")
    if choices.get("scope") not in (None, *SCOPES):
        raise UsageError(f"--scope '{choices['scope']}' is unknown: use {' or '.join(SCOPES)}")
    if not file.exists():
        raise FormatError(f"{file} does not exist: run `mpq search` first, or name a plan or an artifact")
    checks = check_file(file, **choices)
    if json:
        print_json({"file": str(file), "passed": all(c.passed for c in checks), "checks": [vars(c) for c in checks]})
    else:
        print_lines([f"{'ok  ' if c.passed else 'FAIL'}  {file}: {c.name}: {c.message}" for c in checks])
    if not all(c.passed for c in checks):
        raise typer.Exit(1)
