"""`mpq search`: a sensitivity file and a budget become a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mpq.budget import SCOPES, Budget, budget_range
from mpq.cli.options import Config, Json, Trust, default_of, merged
from mpq.cli.searching import Job, starting_schemes
from mpq.cli.sources import check_output, only_analysis
from mpq.config import SearchSettings, settings_from
from mpq.errors import UsageError

_DEFAULTS = SearchSettings()


def command(
    sensitivity: Annotated[Path | None, typer.Argument(help="Sensitivity file. [default: the one in this folder]")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="4.5bits per weight, 12MB, 12MiB, 30% of the original; a range 3:6bits or 3:6:0.25bits writes plans/."),
    ] = None,
    scope: Annotated[str | None, typer.Option(help="What the budget counts: layers (with their scales) or file. [default: layers]")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the plan.")] = Path("plan.yaml"),
    pin: Annotated[list[str] | None, typer.Option(metavar="LAYER=SCHEME", help="Fix a layer's scheme; may be repeated.")] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER,LAYER", help="Layers that must share one scheme; auto ties what runtimes fuse (q/k/v, gate/up, experts)."
        ),
    ] = None,
    min_bits: Annotated[list[str] | None, typer.Option(metavar="PATTERN=BITS", help="Least bits of layers by pattern.")] = None,
    max_error: Annotated[
        float | None, typer.Option(help="Instead of --budget: the smallest plan whose held-out error stays within this.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PLAN", help="A plan to start from, edited by hand or of another tool: CSV layer,bits or its own format."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help=f"Plans measured beyond the exact one; 0 searches the table alone, without the model. {default_of(_DEFAULTS, 'trials')}"
        ),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no trial is begun. [default: none]")] = None,
    seed: Annotated[int | None, typer.Option(help=f"Same seed, same plan. {default_of(_DEFAULTS, 'seed')}")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Optuna storage, for many workers. [default: a journal beside the sensitivity file]")
    ] = None,
    model: Annotated[Path | None, typer.Option("--reference", metavar="MODEL", help="The model, if it has moved.")] = None,
    trust: Trust = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Find the best scheme for each layer under a size.

    The table is solved exactly, with a proof. Then plans near it are measured on the real model, uniform plans compete, and
    held-out samples decide. A killed search goes on where it stopped; the same seed gives the same plan.

    Example: mpq search --budget 4.5bits --pin conv1=int8
    """
    options = {"budget": budget, "scope": scope, "trials": trials, "timeout": timeout, "seed": seed, "storage": storage}
    steering = {"pins": _pairs(pin, "--pin conv1=int8"), "ties": _ties(tie), "min_bits": _pairs(min_bits, "--min-bits 'lm_head=8'")}
    choices = merged("search", config, options | {"max_error": max_error} | {name: value or None for name, value in steering.items()})
    wanted, limit = choices.pop("budget", None), choices.pop("max_error", None)
    if wanted is not None and limit is not None:
        raise UsageError("--budget and --max-error are both given: one limits the size, the other asks for the smallest")
    budgets = [] if limit is not None else _budgets(wanted, choices.pop("scope", None))
    source = sensitivity or only_analysis(Path())

    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(source)
    if start is not None:
        choices["start"] = starting_schemes(start, table)
    job = Job(table, source, settings_from(SearchSettings, choices), reference=model, trust=trust)
    if limit is not None:
        job.report(job.smallest(float(limit)), output, json=json)
    elif len(budgets) == 1:
        check_output(output)
        job.report(job.run(budgets[0]), output, json=json)
    else:
        job.frontier(budgets, output.parent / "plans", json=json)


def _budgets(text: Any, scope: Any) -> list[Budget]:
    if text is None:
        raise UsageError("no budget: give --budget, for example --budget 4.5bits, 12MB or 30%, or --max-error 0.01")
    if scope is not None and scope not in SCOPES:
        raise UsageError(f"--scope '{scope}' is unknown: use {' or '.join(SCOPES)}")
    return budget_range(str(text), scope or SCOPES[0])


def _pairs(texts: list[str] | None, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or ():
        name, mark, value = text.rpartition("=")
        if not mark or not name or not value:
            option, shape = example.split(" ")
            kind = "LAYER=SCHEME" if option == "--pin" else "PATTERN=BITS"
            raise UsageError(f"{option} '{text}' is not {kind}: write for example {option} {shape}")
        found[name] = value
    return found


def _ties(texts: list[str] | None) -> tuple[tuple[str, ...] | str, ...]:
    groups = tuple("auto" if text == "auto" else tuple(part.strip() for part in text.split(",") if part.strip()) for text in texts or ())
    short = next((text for text, group in zip(texts or (), groups, strict=True) if group != "auto" and len(group) < 2), None)
    if short is not None:
        raise UsageError(f"--tie '{short}' names fewer than two layers: write for example --tie layer.q,layer.k,layer.v, or --tie auto")
    return groups
