"""`mpq search`: a sensitivity file and a budget become a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.budget import SCOPES, Budget, budget_range
from mpq.cli import complete
from mpq.cli.console import say, warn
from mpq.cli.find_inputs import check_output, named_inputs, only_analysis
from mpq.cli.find_latency import latency_cost, split_costs
from mpq.cli.options import Activations, Cache, Config, Device, Factory, Json, Reference, Trust, cache_folder, default_of, merged
from mpq.cli.search_fleet import print_fleet
from mpq.cli.search_job import Job, Quality, starting_schemes
from mpq.cli.search_texts import numbers, pairs, parts, ties
from mpq.config import SearchSettings, settings_from
from mpq.errors import UsageError
from mpq.export.registry import TARGETS
from mpq.formats.activations import OFF
from mpq.formats.floats import REST_DTYPES
from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import QUANTIZERS

if TYPE_CHECKING:
    from mpq.records.sensitivity import Sensitivity

_DEFAULTS = SearchSettings()


def command(
    sensitivity: Annotated[Path | None, typer.Argument(help="Sensitivity file. [default: the one in this folder]")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="4.5bits per weight, 12MB, 12MiB, 30% of the original; a range 3:6bits or 3:6:0.25bits writes plans/."),
    ] = None,
    scope: Annotated[str | None, typer.Option(help="What the budget counts: layers (with their scales) or file. [default: layers]")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the plan.")] = Path("plan.yaml"),
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=SCHEME", autocompletion=complete.pin, help="Fix the scheme of layers by name or pattern; may be repeated."
        ),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER,LAYER", help="Layers that must share one scheme; auto ties what runtimes fuse (q/k/v, gate/up, experts)."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TARGET",
            autocompletion=complete.named(TARGETS),
            help="Choose only what this export target stores as it is, and tie what it fuses: compressed-tensors, onnx, ...",
        ),
    ] = None,
    min_bits: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN=BITS", help="Minimum bits for layers matching PATTERN; may be repeated.")
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=SCHEMES",
            autocompletion=complete.schemes_of_layers,
            help="Restrict layers matching PATTERN to these schemes: 'lm_head=8,16'.",
        ),
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(help="Upper limit on the held-out error. Without --budget: finds the smallest plan within it.")
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="DROP", help="Upper limit on the loss of --metric: 0.5% or 0.005. Without --budget: finds the smallest plan within it."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:CALLABLE",
            help="Your own metric for --max-drop: a function that takes the model and returns one number, or one per sample; larger is "
            "better.",
        ),
    ] = None,
    uniform: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME",
            autocompletion=complete.scheme,
            help="Instead of searching, write and measure the plan that gives every layer this scheme.",
        ),
    ] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.named(QUANTIZERS),
            help="Quantizer of the --uniform plan, for example rtn. [default: that of the analysis]",
        ),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE=MOST",
            help="Additional limit: FILE is a CSV with columns layer,scheme,NAME; the total of NAME must not exceed MOST. May be repeated.",
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Additional limit: predicted time of a call, such as 3ms, from the file of `mpq profile` (--cost FILE)."
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Additional limit: the memory of the loaded model with packed weights, 20MB or 30%.")
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(REST_DTYPES),
            autocompletion=complete.named(dict.fromkeys(REST_DTYPES, "")),
            help="Store unquantized tensors in bf16, fp16 or fp32 where that is smaller; every plan is measured with them. [default: "
            "unchanged]",
        ),
    ] = None,
    activations: Activations = None,
    sketches: Annotated[
        bool,
        typer.Option(
            "--sketches",
            help="Make room for sketches of the calibration data, which `mpq apply` then puts into the artifact for `mpq monitor`: 360 "
            "bytes for each of up to 12 tensors. Off by default, because a budget on the file has to pay for them.",
        ),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PLAN",
            help="A plan to start from: edited by hand, or from another tool (CSV layer,bits or the tool's own format).",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Plans to evaluate on the model, in addition to the exact and uniform ones; 0 uses the table only. "
            f"{default_of(_DEFAULTS, 'trials')}"
        ),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no new trial starts. [default: none]")] = None,
    seed: Annotated[int | None, typer.Option(help=f"Same seed, same plan. {default_of(_DEFAULTS, 'seed')}")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Optuna storage, such as a database; several processes can share one study. [default: a journal next to the sensitivity "
            "file]",
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Instead of searching, show which processes work on a storage or .study.journal, and their progress.",
        ),
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", autocompletion=complete.layer_of_analysis, help="Explain why this layer got its scheme; may be repeated."
        ),
    ] = None,
    model: Reference = None,
    factory: Factory = None,
    trust: Trust = False,
    cache: Cache = None,
    device: Device = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Find the best scheme for each layer within a size, an error, or both.

    The table is solved to proven optimality. Then plans near the optimum are measured on the real model and compete with uniform plans;
    held-out samples help to decide. Run the command again to resume a killed search. The same seed gives the same plan.

    Example: mpq search --budget 4.5bits --pin conv1=int8
    """
    if status is not None:
        print_fleet(status, json=json)
        return
    cost, profile = split_costs(cost, timed=max_latency is not None)
    options = {"budget": budget, "scope": scope, "trials": trials, "timeout": timeout, "seed": seed, "storage": storage}
    steering = {
        "pins": pairs(pin, "--pin PATTERN=SCHEME", "conv1=int8"),
        "ties": ties(tie),
        "min_bits": pairs(min_bits, "--min-bits PATTERN=BITS", "'lm_head=8'"),
        "candidates": {name: parts(text) for name, text in pairs(candidates, "--candidates PATTERN=SCHEMES", "'lm_head=8,16'").items()},
        "costs": numbers(pairs(cost, "--cost FILE=MOST", "latency.csv=3.2")),
    }
    options |= {"max_error": max_error, "max_drop": max_drop, "metric": metric, "max_latency": max_latency}
    options |= {"rest": rest, "memory": memory, "activations": activations, "sketches": sketches or None}
    if uniform is not None:
        _refuse_others(options | steering | {"from": start, "explain": explain, "for": target})
    elif quantizer is not None:
        raise UsageError("--quantizer needs --uniform: a search uses the quantizer of its analysis")
    choices = merged("search", config, options | {name: value or None for name, value in steering.items()})
    wanted, limit, drop, own, latency = (choices.pop(name, None) for name in ("budget", "max_error", "max_drop", "metric", "max_latency"))
    if any(value is not None for value in (budget, max_error, max_drop)):  # limits on the command line replace those in the file
        wanted, limit, drop = budget, max_error, max_drop
        own = own if drop is not None or metric is not None else None
    if (drop is None) != (own is None):
        raise UsageError("give --max-drop and --metric together: write for example --max-drop 0.5% --metric evaluation:accuracy")
    scope = choices.pop("scope", None)
    if latency is not None and (wanted, limit, drop, uniform) == (None, None, None, None):
        say("no --budget: every size within --max-latency is allowed")
        wanted = "100%"
    asked = limit is not None or drop is not None or uniform is not None
    budgets: list[Budget | None] = [None] if wanted is None and asked else [*_budgets(wanted, scope)]
    source = sensitivity or only_analysis(Path())

    from mpq.evidence.self_check import self_check_warnings
    from mpq.records.sensitivity import read_sensitivity
    from mpq.search.quality import read_drop
    from mpq.search.rest import stored_as

    quality = Quality(None if limit is None else float(limit), None if drop is None else read_drop(str(drop)), own)

    table = stored_as(read_sensitivity(source), settings_from(SearchSettings, {"rest": choices.get("rest")}).rest)
    if latency is not None:
        rounded = settings_from(SearchSettings, {"activations": choices.get("activations")}).activations != OFF
        given = latency_cost(str(latency), profile, source, model=str(table.header.model.get("sha256")), activations=rounded)
        choices["costs"] = {**choices.get("costs", {}), **given}
    for line in self_check_warnings(table.finish, method=str(table.header.settings["method"])):
        warn(line)
    for note in table.notes:
        say(note)
    if len(budgets) < 2:
        check_output(output, inputs=(source, *named_inputs(table.header.model, table.header.data, source)))
    given_start = choices.pop("start", None) if start is None else start
    if given_start is not None:
        choices["start"] = given_start if isinstance(given_start, dict) else starting_schemes(Path(given_start), table)
        if choices.get("trials") == 0:
            say("--trials 0 measures no plan, so --from has no effect")
    settings = settings_from(SearchSettings, choices)
    if target is not None:
        settings = _suited(settings, table, target)
    job = Job(
        table,
        source,
        settings,
        quality=quality,
        reference=model,
        factory=factory,
        cache=cache_folder(cache, source),
        trust=trust,
        device=device,
    )
    if uniform is not None:
        job.report(job.uniform(parse_scheme(uniform), quantizer), output, json=json)
    elif len(budgets) == 1:
        job.report(job.run(budgets[0]), output, json=json, explain=explain or ())
    else:
        job.frontier([budget for budget in budgets if budget is not None], output.parent / "plans", json=json)


def _suited(settings: SearchSettings, table: Sensitivity, target: str) -> SearchSettings:
    from mpq.export.suited import suited

    found = suited(settings, table, target)
    for note in found.notes:
        warn(note)
    return found.settings


def _budgets(text: Any, scope: Any) -> list[Budget]:
    if text is None:
        raise UsageError("no budget: give --budget, for example --budget 4.5bits, 12MB or 30%, or --max-error 0.01")
    if scope is not None and scope not in SCOPES:
        raise UsageError(f"--scope '{scope}' is unknown: use {' or '.join(SCOPES)}")
    return budget_range(str(text), scope or SCOPES[0])


def _refuse_others(options: dict[str, Any]) -> None:
    """Refuse options that have no effect on a uniform plan."""
    free = ("trials", "timeout", "seed", "storage", "rest", "activations", "sketches")
    found = next((name for name, value in options.items() if value and name not in free), None)
    if found is not None:
        option = {"pins": "pin", "ties": "tie", "costs": "cost"}.get(found, found).replace("_", "-")
        raise UsageError(f"--uniform gives every layer one scheme: leave out --{option}")
