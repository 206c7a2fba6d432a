"""`mpq recover`: an artifact is trained at fixed bytes."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mpq.cli.console import print_json, print_lines, progress_in_turn, say
from mpq.cli.find_inputs import check_output, located_model, named_inputs, read_data, reopen_data, reopen_model, stem_of
from mpq.cli.next_step import code_options
from mpq.cli.options import BatchAxis, BatchSize, Factory, Json, Mask, NumSamples, SeedEachForward, SeqLen, TextField, Trust
from mpq.cli.replaced import say_replaced
from mpq.config import EPOCHS, LEVELS, data_settings
from mpq.errors import FormatError, MismatchError, UsageError
from mpq.files import write_text

if TYPE_CHECKING:
    from mpq.config import Level
    from mpq.records.plan import Plan
    from mpq.recovery.training.job import Line
    from mpq.recovery.training.settings import TrainSettings


def command(
    plan: Annotated[Path, typer.Argument(help="The plan whose artifact is trained.")] = Path("plan.yaml"),
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="Samples to train on, without labels; read like the plan's own data. Required."),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The artifact to start from. [default: what `mpq apply` wrote next to the plan]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="[default: MODEL.recovered.mpq.safetensors next to the plan]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help=f"Passes over the training samples. [default: {EPOCHS}]")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train for about this long instead; the result then depends on the machine's speed.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(LEVELS),
            help="What is trained. scales: scales, biases and norms; codes: also the codes of integer formats; weights: all codes. "
            "[default: weights at 2 bits and less, else codes]",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Multiplies the usual learning rates. [default: found by short runs on samples set aside]")
    ] = None,
    model: Annotated[Path | None, typer.Option("--reference", metavar="MODEL", help="The model, if it is not where the plan says.")] = None,
    seq_len: SeqLen = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = None,
    mask: Mask = None,
    batch_axis: BatchAxis = None,
    text_field: TextField = None,
    seed_each_forward: SeedEachForward = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Train a quantized model toward the original's outputs without changing its size.

    Scales, biases, norms and codes are trained; no labels are needed. A tenth of the samples is set aside to choose the learning rate and
    to stop early. The plan's held-out samples decide whether the result is kept, and the plan records the error before and after. A killed
    run resumes from its last checkpoint. Judge the result with `mpq eval` on separate data.

    Example: mpq recover plan.yaml --data train.pt
    """
    if data is None:
        raise UsageError("nothing to train on: give samples with --data FILE; they need no labels")
    if epochs is not None and minutes is not None:
        raise UsageError("--epochs and --minutes both say how long to train: give one of them")
    if not plan.exists():
        raise FormatError(f"{plan} does not exist: run `mpq search` first, or name the plan")

    from mpq.apply.train import train_artifact
    from mpq.records.plan import read_plan
    from mpq.records.recovery_evidence import note_recovery
    from mpq.records.recovery_lines import beside_artifact

    wanted = read_plan(plan)
    settings = _settings(wanted, level, epochs, minutes, rate)
    stem = stem_of(model or located_model(wanted.model, plan))
    start, target = artifact or plan.with_name(f"{stem}.mpq.safetensors"), output or plan.with_name(f"{stem}.recovered.mpq.safetensors")
    if not start.exists():
        raise FormatError(f"{start} does not exist: run `mpq apply {plan}` first, or name the artifact with --artifact")
    check_output(target, inputs=(plan, start, model, *named_inputs(wanted.model, wanted.data, plan)))
    if not wanted.data:
        raise MismatchError(f"{plan} has no held-out samples to decide with: search with the model, then apply and recover")
    say_replaced(target, wanted)
    loaded = reopen_model(wanted.model, plan, given=model, factory=factory, trust=trust)
    plan_data = reopen_data(wanted.data, plan, loaded, trust=trust)
    asked = {"seq_len": seq_len, "mask": mask, "batch_axis": batch_axis, "text_field": text_field, "seed_each_forward": seed_each_forward}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value}
    read = replace(data_settings(wanted.data), num_samples=num_samples, batch_size=batch_size, **chosen)
    journal, folder = beside_artifact(target, ".recover.jsonl"), beside_artifact(target, ".recover")

    def note(lines: list[Line]) -> None:
        write_text(journal, "".join(json_module.dumps(asdict(line)) + "\n" for line in lines))

    with progress_in_turn() as stage:
        done = train_artifact(
            loaded,
            wanted,
            start,
            target,
            data=read_data(data, loaded, read),
            plan_data=plan_data,
            settings=settings,
            folder=folder,
            on_line=note,
            on_progress=stage,
        )
    found = done.evidence
    if done.path is not None:
        note_recovery(plan, {"artifact": done.path.name, **found})
    done.finish()
    if json:
        decided = {"decision": done.decision.to_dict(), "evidence": found or None, "lines": str(journal)}
        print_json({"output": None if done.path is None else str(done.path), "file_bytes": done.file_bytes or None, **decided})
        return
    print_lines([done.decision.line])
    if done.path is None:
        print_lines([f"nothing written: {start} is unchanged"])
        return
    print_lines(
        [
            f"{done.path}: {done.file_bytes:,} bytes, the same as before",
            f"{found['share_of_gap']:.0%} of the error is gone; recorded in {plan}, with one line per evaluation in {journal.name}",
        ]
    )
    say(f"next: mpq eval {done.path} --data FILE{code_options(wanted.model, {}, trust=trust)}")


def _settings(plan: Plan, level: str | None, epochs: int | None, minutes: float | None, rate: float | None) -> TrainSettings:
    from mpq.recovery.training.settings import TrainSettings, level_for

    if level is None:
        level, reason = level_for(plan.layers.values())
        say(f"level {level}: {reason}")
    return TrainSettings(cast("Level", level), EPOCHS if epochs is None else epochs, minutes, rate)
