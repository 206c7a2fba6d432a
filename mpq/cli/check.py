"""`mpq check`: the CI gate."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.budget import SCOPES
from mpq.cli import complete
from mpq.cli.console import print_json, print_lines, say
from mpq.cli.options import Config, Factory, Json, NumSamples, SeqLen, Trust, merged
from mpq.config import DataSettings
from mpq.errors import UsageError
from mpq.files import exists
from mpq.models.running.metric_registry import FIGURES
from mpq.shown import shown

if TYPE_CHECKING:
    from mpq.check.budgets import Rule
    from mpq.check.gate import Limits
    from mpq.check.measured_error import Measure
    from mpq.check.run import Check
    from mpq.check.verdicts import Verdict
    from mpq.records.evaluation import Evaluation

_OF_RULES = ("max_loaded", "max_loaded_packed", "data", "metric", "seq_len", "num_samples")
_SETTINGS = ("budget", "scope", "max_error", *_OF_RULES)
_PLAN = Path("plan.yaml")
_CI = "In CI"
_DATA = "Data"


def command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Plans, artifacts, or any model file or folder. [default: the files that mpq-budgets.yaml names, else plan.yaml]"
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Size limit: 4.5bits, 12MB, 30%. A plan's own budget always applies too.")] = None,
    scope: Annotated[str | None, typer.Option(help="What --budget counts: layers or file. [default: the plan's own scope]")] = None,
    max_loaded: Annotated[str | None, typer.Option(help="Limit for the memory of the model that mpq.load returns: 64MB.")] = None,
    max_loaded_packed: Annotated[str | None, typer.Option(help="The same, loaded with packed=True.")] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Limit for the plan's held-out error, in its metric. With --data: limit for the artifact's error on that data."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="REVISION|FILE", help="The earlier plan to compare the size with: a file or a git revision.")
    ] = None,
    max_growth: Annotated[str | None, typer.Option(help="How much the file may grow since the baseline, in percent. [default: 0%]")] = None,
    budgets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rules for many files, applied in addition to all other limits. [default: mpq-budgets.yaml, if it is here]"
        ),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Write mpq-budgets.yaml with limits for the files in and below this folder.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Data to evaluate artifacts on, as in mpq eval; --max-error limits the error.", rich_help_panel=_DATA
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.named(dict.fromkeys(FIGURES, "")),
            help="Which metric of mpq eval --max-error limits. It counts how much worse the artifact is than the reference, so accuracy "
            "means the loss of accuracy. [default: kl_divergence if there is one, else relative_mse]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="The unquantized model, if it has moved.", rich_help_panel=_DATA)
    ] = None,
    seq_len: SeqLen = None,
    num_samples: NumSamples = None,
    factory: Factory = None,
    trust: Trust = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JUnit XML.", rich_help_panel=_CI)] = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github", help="Write annotations and a step summary. [default: only inside GitHub Actions]", rich_help_panel=_CI
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check that plans, artifacts and model files are within budget; exit 1 if not.

    All limits apply together: the plan's own budget, the options given here, and the rules in mpq-budgets.yaml for these files. Sizes are
    computed from the plan's layers, not read from its text, so edits to a plan count.

    Example: mpq check plan.yaml --budget 4.5bits --max-error 0.02 --baseline origin/main
    """
    from mpq.check.budgets import DEFAULT, read_budgets
    from mpq.check.gate import gate

    if init:
        _init(budgets or DEFAULT)
        return
    options = {"budget": budget, "scope": scope, "max_loaded": max_loaded, "max_loaded_packed": max_loaded_packed, "max_error": max_error}
    choices = merged("check", config, options | {"data": data, "metric": metric, "seq_len": seq_len, "num_samples": num_samples})
    _check_choices(choices)
    grows = _percent(max_growth) if max_growth is not None else 0.0 if baseline is not None else None
    if grows is not None and baseline is None:
        raise UsageError("--max-growth needs --baseline: a git revision such as origin/main, or a file")
    if reference is not None:
        choices["reference"] = str(reference)
    limited = bool(choices) or baseline is not None
    if budgets is None and DEFAULT.exists():
        budgets = DEFAULT
    named = files or ([] if budgets is not None else [_PLAN])
    rules = [] if budgets is None else read_budgets(budgets)
    limits = _limits(choices, baseline, grows) if limited else None
    root = budgets.parent if budgets is not None else Path()

    def measured(folder: Path, *, by_rules: bool) -> Measure:
        return _measure(folder, budgets=budgets if by_rules else None, factory=factory, trust=trust)

    verdicts = gate(named, limits, rules, root, measure=measured)
    _report(verdicts, json=json, junit=junit, github=os.environ.get("GITHUB_ACTIONS") == "true" if github is None else github)


def _measure(root: Path, *, budgets: Path | None, factory: str | None, trust: bool) -> Measure:
    """Evaluates artifacts on the data of a rule. Paths are relative to `root`; code that a budgets file names needs trust."""

    def measure(artifact: Path, rule: Rule) -> Evaluation:
        from mpq.cli.eval_artifact import evaluate_artifact
        from mpq.models.sources.state_dict import code_named_by_file
        from mpq.records.named_code import refuse_code

        source, mark, rest = str(rule.data).partition("?")
        there = exists(root / source)
        if budgets is not None and not there and ":" in source and not trust:
            refuse_code(source, budgets)
        data = f"{root / source}{mark}{rest}" if there else str(rule.data)
        reference = None if rule.reference is None else root / rule.reference
        settings = DataSettings(seq_len=rule.seq_len, num_samples=rule.num_samples)
        with nullcontext() if budgets is None else code_named_by_file():
            return evaluate_artifact(artifact, data, settings, reference=reference, factory=factory, trust=trust)

    return measure


def _limits(choices: dict[str, Any], baseline: str | None, grows: float | None) -> Limits:
    from mpq.check.gate import Limits

    of_rule = [*_OF_RULES, "reference", *(["max_error"] if "data" in choices else [])]
    rule = {name: choices[name] for name in of_rule if name in choices}
    others: dict[str, Any] = {name: value if name == "max_error" else str(value) for name, value in choices.items() if name not in rule}
    return Limits(**others, rule=rule, baseline=baseline, growth=grows)


def _report(verdicts: list[Verdict], *, json: bool, junit: Path | None, github: bool) -> None:
    from mpq.check import outputs
    from mpq.files import write_text

    passed = all(verdict.passed for verdict in verdicts)
    if json:
        print_json(_record(verdicts, passed))
    else:
        print_lines([line for verdict in verdicts for check in verdict.checks for line in _lines(verdict.file, check)])
    if junit is not None:
        write_text(junit, outputs.junit(verdicts))
    if github:
        for line in outputs.annotate(verdicts):
            typer.echo(line, err=json)
        if where := os.environ.get("GITHUB_STEP_SUMMARY"):
            outputs.append_summary(verdicts, Path(where))
    if not passed:
        raise typer.Exit(1)


def _lines(file: str, check: Check) -> list[str]:
    return [f"{'ok  ' if check.passed else 'FAIL'}  {file}: {check.name}: {check.message}", *(f"        {text}" for text in check.details)]


def _record(verdicts: list[Verdict], passed: bool) -> dict[str, Any]:
    """One file as an object; several as a list under "files"."""
    records = [{"file": v.file, "rule": v.rule, "passed": v.passed, "checks": [vars(check) for check in v.checks]} for v in verdicts]
    if len(records) == 1 and records[0].pop("rule") == "command line":
        return records[0]
    return {"passed": passed, "files": records}


def _init(path: Path) -> None:
    from mpq.check.init_budgets import starting_budgets
    from mpq.files import write_text

    if path.exists():
        raise UsageError(f"{path} already exists: edit it, or remove it first")
    text = starting_budgets(path.parent)
    write_text(path, text)
    print_lines(text.rstrip().splitlines())
    say(f"wrote {path}; next: mpq check")


def _check_choices(choices: dict[str, Any]) -> None:
    unknown = sorted(set(choices) - set(_SETTINGS))
    if unknown:
        raise UsageError(f"'{unknown[0]}' is not a setting of check: use {', '.join(_SETTINGS)}")
    if choices.get("scope") not in (None, *SCOPES):
        raise UsageError(f"--scope '{choices['scope']}' is unknown: use {' or '.join(SCOPES)}")
    most = choices.get("max_error", 0)
    if not isinstance(most, int | float) or not 0 <= most < math.inf:
        raise UsageError(f"--max-error {most} is not a limit: give a number of 0 or more")


def _percent(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--max-growth {shown(text)} is not a percentage: write for example 1%")
    return value
