"""`mpq search`: a sensitivity file and a budget become a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mpq.budget import SCOPES, Budget
from mpq.cli.console import figure, print_json, print_table, progress, say
from mpq.cli.options import Config, Json, Trust, default_of, merged
from mpq.cli.sources import check_output, only_analysis, reopen_data, reopen_model
from mpq.config import SearchSettings, settings_from
from mpq.errors import UsageError

_DEFAULTS = SearchSettings()


def command(
    sensitivity: Annotated[Path | None, typer.Argument(help="Sensitivity file. [default: the one in this folder]")] = None,
    budget: Annotated[str | None, typer.Option(help="4.5bits per weight, 12MB, 12MiB, or 30% of the original.")] = None,
    scope: Annotated[str | None, typer.Option(help="What the budget counts: layers (with their scales) or file. [default: layers]")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the plan.")] = Path("plan.yaml"),
    pin: Annotated[list[str] | None, typer.Option(metavar="LAYER=SCHEME", help="Fix a layer's scheme; may be repeated.")] = None,
    tie: Annotated[
        list[str] | None, typer.Option(metavar="LAYER,LAYER", help="Layers that must share one scheme; may be repeated.")
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
    choices = merged("search", config, options | {"pins": _pins(pin) or None, "ties": _ties(tie) or None})
    wanted = _budget(choices.pop("budget", None), choices.pop("scope", None))
    source = sensitivity or only_analysis(Path())

    check_output(output)

    from mpq.records.plan import write_plan
    from mpq.records.sensitivity import read_sensitivity
    from mpq.search.run import search
    from mpq.search.storage import open_storage

    table = read_sensitivity(source)
    settings = settings_from(SearchSettings, choices)
    result = search(table, wanted, settings=settings)  # what cannot be met is refused here, before the model is loaded
    if settings.trials > 0:
        from mpq.evaluate.measurer import PlanMeasurer

        loaded = reopen_model(table.header.model, source, given=model, trust=trust)
        measurer = PlanMeasurer(loaded, reopen_data(table.header.data, source, loaded), table)
        say(f"search: {source.name}, budget {wanted}, {settings.trials} trials at most; --trials 0 searches the table alone")
        with progress("search") as advance:
            result = search(
                table,
                wanted,
                measurer=measurer,
                settings=replace(settings, storage=open_storage(settings.storage, beside=source)),
                on_progress=lambda stage, done, total, best: advance(done, total, f"{stage}, {table.metric} {figure(best)}"),
            )
    write_plan(result.plan, output)
    size = result.plan.size
    if json:
        print_json({"output": str(output), "size": vars(size), "evidence": result.plan.evidence, "reason": result.reason})
        return
    if result.finalists:
        print_table(
            ["finalist", "bpw", "predicted", "calibration", "held-out"],
            [_finalist(finalist.uniform, finalist.row()) for finalist in result.finalists],
            title=f"{table.metric} by finalist",
        )
    say(f"chosen: {result.reason}")
    gap = result.plan.evidence["optimality_gap"]
    proof = "proven optimal for the table" if gap == 0 else f"within {gap:.2%} of the table's optimum"
    say(f"exact stage: {proof}; {result.measurements} plans measured")
    say(f"wrote {output}: {size.effective_bits:.4g} bits per weight over the layers ({size.layer_bytes:,} bytes),")
    say(f"{size.file_effective_bits:.4g} over the file ({size.file_bytes:,} bytes)")
    say(f"next: mpq apply {output}")


def _finalist(uniform: bool, row: Mapping[str, Any]) -> list[str]:
    return [
        f"uniform {row['name']}" if uniform else str(row["name"]),
        f"{row['effective_bits']:.3f}",
        figure(row["predicted"]),
        figure(row["calibration"], row["calibration_stderr"]),
        figure(row["held_out"], row["held_out_stderr"]),
    ]


def _budget(text: Any, scope: Any) -> Budget:
    if text is None:
        raise UsageError("no budget: give --budget, for example --budget 4.5bits, 12MB or 30%")
    if scope is not None and scope not in SCOPES:
        raise UsageError(f"--scope '{scope}' is unknown: use {' or '.join(SCOPES)}")
    return Budget(str(text), scope or SCOPES[0])


def _pins(texts: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or ():
        layer, mark, scheme = text.rpartition("=")
        if not mark or not layer or not scheme:
            raise UsageError(f"--pin '{text}' is not LAYER=SCHEME: write for example --pin conv1=int8")
        found[layer] = scheme
    return found


def _ties(texts: list[str] | None) -> tuple[tuple[str, ...], ...]:
    groups = tuple(tuple(part.strip() for part in text.split(",") if part.strip()) for text in texts or ())
    short = next((text for text, group in zip(texts or (), groups, strict=True) if len(group) < 2), None)
    if short is not None:
        raise UsageError(f"--tie '{short}' names fewer than two layers: write for example --tie layer.q,layer.k,layer.v")
    return groups
