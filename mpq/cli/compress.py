"""`mpq compress`: analyze, search, apply and check in one command, each exactly like the separate command."""

from __future__ import annotations

import io
import json as jsons
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from mpq.budget import SCOPES, budget_range
from mpq.cli import analyze, apply, check, search
from mpq.cli.console import no_next_steps, print_json, say, suggest
from mpq.cli.find_inputs import check_output, stem_of
from mpq.cli.options import (
    AllowUnexpected,
    BatchAxis,
    CheckpointKey,
    Config,
    Factory,
    Json,
    NumSamples,
    SeqLen,
    Trust,
    default_of,
)
from mpq.config import AnalysisSettings, SearchSettings
from mpq.errors import UsageError


def command(
    model: Annotated[
        Path,
        typer.Argument(
            help="torch.export archive, TorchScript, Hugging Face folder, hf://ORG/NAME@REVISION, or state dict with --builder."
        ),
    ],
    budget: Annotated[str, typer.Option(help="The size limit: 4.5bits per weight, 12MB, 12MiB, or 30% of the original.")],
    calib: Annotated[
        str | None,
        typer.Option(
            "--calib",
            "--calibration",
            "--data",
            metavar="FILE",
            help="Inputs, as for mpq analyze. [default: calibration.* next to the model, else an exported program's example inputs]",
            rich_help_panel="Data",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for all files; it is created if needed.")
    ] = Path(),
    scope: Annotated[str | None, typer.Option(help="What the budget counts: layers (with their scales) or file. [default: layers]")] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEMES",
            help=f"Bits, ranges (2..8), schemes, or fine, as for mpq analyze. {default_of(AnalysisSettings(), 'candidates')}",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help=f"Plans to evaluate on the model, in addition to the exact and uniform ones. {default_of(SearchSettings(), 'trials')}"
        ),
    ] = None,
    num_samples: NumSamples = None,
    seq_len: SeqLen = None,
    batch_axis: BatchAxis = None,
    factory: Factory = None,
    checkpoint_key: CheckpointKey = None,
    allow_unexpected: AllowUnexpected = False,
    trust: Trust = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make a model smaller in one command: analyze, search, apply and check, with the defaults of each.

    Each step prints its own command, which you can run separately with more options. All files are kept: the sensitivity file, plan.yaml
    and the artifact. Run the command again to resume; with a different budget, the analysis is reused. The exit code is that of mpq check.

    Example: mpq compress model.pt2 --calib calibration.pt --budget 4.5bits
    """
    _refuse_early(budget, scope, calib, trust=trust)
    output.mkdir(parents=True, exist_ok=True)
    stem = stem_of(model)
    sensitivity, plan, artifact = (output / name for name in (f"{stem}.sensitivity.jsonl", "plan.yaml", f"{stem}.mpq.safetensors"))
    for path in (sensitivity, plan, artifact):
        check_output(path, inputs=(model, calib, config))
    code = {"factory": factory, "trust": trust}
    reading = {"num_samples": num_samples, "seq_len": seq_len, "batch_axis": batch_axis}
    reading |= {"checkpoint_key": checkpoint_key, "allow_unexpected": allow_unexpected}
    measuring = {"calib": calib, "output": sensitivity, "candidates": candidates, **reading, "config": config, **code}
    searching = {"budget": budget, "scope": scope, "output": plan, "trials": trials, "config": config, **code}
    steps = (
        _Step("analyze", analyze.command, ("model", model), measuring),
        _Step("search", search.command, ("sensitivity", sensitivity), searching),
        _Step("apply", apply.command, ("plan", plan), {"output": artifact, **code}),
        _Step("check", check.command, ("files", [plan, artifact]), {}),
    )
    with no_next_steps():
        stopped = _run(steps, json=json)
    suggest(f"mpq eval {artifact} --data FILE; mpq report {plan}")
    if stopped:
        raise typer.Exit(stopped)


def _refuse_early(budget: str, scope: str | None, calib: str | None, *, trust: bool) -> None:
    """Refuse at once what the search would refuse only after the analysis."""
    if scope is not None and scope not in SCOPES:
        raise UsageError(f"--scope '{scope}' is unknown: use {' or '.join(SCOPES)}")
    if len(budget_range(budget, SCOPES[0])) > 1:
        raise UsageError(f"--budget {budget} is a range: give one size here, and search the range with mpq search")
    if calib is not None and ":" in calib and not Path(calib.partition("?")[0]).exists() and not trust:
        raise UsageError(f"--calib {calib} is called again by the steps after the analysis, which read its name from a file: add --trust")


class _Step(NamedTuple):
    """One command: its name, its function, its argument and its options, named as the function's parameters."""

    name: str
    command: Callable[..., None]
    argument: tuple[str, Any]
    options: Mapping[str, Any]

    def run(self, *, json: bool) -> None:
        """Run the command."""
        name, value = self.argument
        self.command(**{name: value}, **self.options, json=json)

    @property
    def line(self) -> str:
        """The command as the user would type it."""
        words = [str(each) for each in (self.argument[1] if isinstance(self.argument[1], list) else [self.argument[1]])]
        for name, value in self.options.items():
            option = "--builder" if name == "factory" else f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, list) else [value]:
                words += [] if each is None or each is False else [option] if each is True else [option, str(each)]
        return shlex.join(["mpq", self.name, *words])


def _run(steps: Sequence[_Step], *, json: bool) -> int:
    """Run the steps and return the exit code of the last. Their JSON documents are merged into one."""
    found: dict[str, Any] = {}
    code = 0
    for step in steps:
        say(f"$ {step.line}")
        said = io.StringIO()
        try:
            with redirect_stdout(said) if json else nullcontext():
                step.run(json=json)
        except typer.Exit as stop:
            code = stop.exit_code
        if json:
            found[step.name] = jsons.loads(said.getvalue())
    if json:
        print_json(found)
    return code
