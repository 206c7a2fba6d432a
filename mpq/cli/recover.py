"""`mpq recover`: an artifact is trained at fixed bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mpq.cli.console import print_json, print_lines, progress_in_turn, say
from mpq.cli.find_inputs import check_output, located_model, named_inputs, read_data, reopen_data, reopen_model, stem_of
from mpq.cli.next_step import code_options
from mpq.cli.options import (
    BatchAxis,
    BatchSize,
    Factory,
    Json,
    Mask,
    MaxMemory,
    NumSamples,
    Reference,
    SeedEachForward,
    SeqLen,
    TextField,
    Trust,
    memory_limit,
)
from mpq.cli.reallocated import Files, analysis_of, note, reallocated
from mpq.cli.replaced import say_replaced
from mpq.config import EPOCHS, LEVELS, check_windows, data_settings
from mpq.errors import FormatError, MismatchError, UsageError

if TYPE_CHECKING:
    from mpq.config import Level
    from mpq.data.dataset import Data
    from mpq.models.sources.loaded import LoadedModel
    from mpq.records.plan import Plan
    from mpq.recovery.training.settings import TrainSettings

_OTHER_TEXT = 1  # added to the seed


def command(
    plan: Annotated[Path, typer.Argument(help="The plan whose artifact is trained.")] = Path("plan.yaml"),
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Samples to train on; they need no labels. Read like the plan's own data. Required, unless --own-text is given: then the "
            "plan's calibration samples are the default.",
        ),
    ] = None,
    own_text: Annotated[
        int,
        typer.Option(
            "--own-text",
            metavar="WINDOWS",
            show_default=False,
            help="Windows of text that a language model writes itself, to train on in addition. [default: 0]",
        ),
    ] = 0,
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
    blocks: Annotated[
        bool,
        typer.Option(
            "--blocks/--no-blocks",
            help="Train block by block first, then end to end. The blocks are kept only if the held-out samples agree. Skipped with "
            "--level scales, because it changes codes.",
        ),
    ] = True,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="Make the right answers half of the loss: labels, or the next tokens of a language model's text. The held-out "
            "samples still decide by the distance to the original's outputs.",
        ),
    ] = False,
    reallocate: Annotated[
        bool,
        typer.Option(
            "--reallocate",
            help="After training, measure the layers again on the trained model, search a new plan of at most the same size, and train "
            "once more. Written as PLAN.reallocated.yaml and MODEL.reallocated.mpq.safetensors if held-out samples agree. Pins and ties "
            "stay.",
        ),
    ] = False,
    rate: Annotated[
        float | None, typer.Option(help="Multiplies the usual learning rates. [default: found by short runs on samples set aside]")
    ] = None,
    model: Reference = None,
    offload: Annotated[
        Path | None,
        typer.Option(
            "--offload",
            metavar="FOLDER",
            help="For Hugging Face folders larger than memory: weights stay in their safetensors files, and what is made goes to unnamed "
            "files in this folder. One block after another is trained; training end to end, which needs all of them, is left out.",
            rich_help_panel="Model",
        ),
    ] = None,
    max_memory: MaxMemory = None,
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

    Scales, biases, norms and codes are trained, block by block first and then end to end; no labels are needed. A tenth of the samples is
    set aside to choose the learning rate and to stop early. The plan's held-out samples decide whether the result is kept, and the plan
    records the error before and after. A killed run resumes from its last checkpoint. Judge the result with `mpq eval` on separate data.

    Example: mpq recover plan.yaml --data train.pt
    """
    check_windows(own_text)
    if data is None and not own_text:
        raise UsageError(
            "nothing to train on: give samples with --data FILE; they need no labels. A language model can write them: --own-text 1000"
        )
    if epochs is not None and minutes is not None:
        raise UsageError("--epochs and --minutes both say how long to train: give one of them")
    limit = memory_limit(max_memory, offload)
    if offload is not None and (reallocate or labels or not blocks):
        raise UsageError("--offload trains one block after another: leave out --reallocate, --labels and --no-blocks")
    if not plan.exists():
        raise FormatError(f"{plan} does not exist: run `mpq search` first, or name the plan")

    from mpq.apply.memory import expected_memory
    from mpq.apply.plan_layers import plan_layers
    from mpq.apply.train import train_artifact
    from mpq.models.memory.peak import peak_memory, peak_text
    from mpq.records.plan import read_plan
    from mpq.records.recovery_evidence import note_recovery
    from mpq.records.recovery_lines import beside_artifact

    wanted = read_plan(plan)
    if reallocate and (wanted.activations or wanted.equalization):
        has = "integer activations" if wanted.activations else "equalized channels"
        raise UsageError(f"--reallocate does not cover plans with {has}: leave it out")
    table = analysis_of(plan, wanted) if reallocate else None
    settings = replace(
        _settings(wanted, level, epochs, minutes, rate), labels=labels, blocks=blocks, end_to_end=offload is None, batch_size=batch_size
    )
    stem = stem_of(model or located_model(wanted.model, plan))
    start, target = artifact or plan.with_name(f"{stem}.mpq.safetensors"), output or plan.with_name(f"{stem}.recovered.mpq.safetensors")
    if not start.exists():
        raise FormatError(f"{start} does not exist: run `mpq apply {plan}` first, or name the artifact with --artifact")
    inputs = (plan, start, model, *named_inputs(wanted.model, wanted.data, plan))
    check_output(target, inputs=inputs)
    if not wanted.data:
        raise MismatchError(f"{plan} has no held-out samples to decide with: search with the model, then apply and recover")
    say_replaced(target, wanted)
    loaded = reopen_model(wanted.model, plan, given=model, factory=factory, trust=trust, offload=offload, max_memory=limit)
    plan_data = reopen_data(wanted.data, plan, loaded, trust=trust)
    asked = {"seq_len": seq_len, "mask": mask, "batch_axis": batch_axis, "text_field": text_field, "seed_each_forward": seed_each_forward}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value}
    read = replace(data_settings(wanted.data), num_samples=num_samples, spread=True, batch_size=batch_size, **chosen)
    journal, folder = beside_artifact(target, ".recover.jsonl"), beside_artifact(target, ".recover")

    files = Files.beside(plan, target)
    for path in () if table is None else (files.plan, files.artifact):
        check_output(path, inputs=(*inputs, target))

    with progress_in_turn() as stage:
        samples = plan_data.split_as(wanted.data).calibration if data is None else read_data(data, loaded, read)
        samples = _with_text(loaded, samples, own_text, seed=int(wanted.data["seed"]))
        expected = 0 if offload is None else expected_memory(loaded, plan_layers(wanted, loaded), samples, recovery=True)
        given: dict[str, Any] = {"data": samples, "plan_data": plan_data, "settings": settings, "on_progress": stage}
        done = train_artifact(loaded, wanted, start, target, folder=folder, on_line=partial(note, journal), **given)
        found = done.evidence
        if done.path is not None:
            note_recovery(plan, {"artifact": done.path.name, **found})
        again = None if table is None else reallocated(files, loaded, wanted, table, done.path or start, given)
    done.finish()
    if offload is not None:
        say(peak_text(peak_memory(), expected))
    if json:
        decided = {"decisions": [made.to_dict() for made in done.decisions], "evidence": found or None, "lines": str(journal)}
        decided |= {} if again is None else {"reallocation": again.facts}
        print_json({"output": None if done.path is None else str(done.path), "file_bytes": done.file_bytes or None, **decided})
        return
    print_lines([made.line for made in done.decisions])
    if done.path is None:
        print_lines([f"nothing written: {start} is unchanged"])
    else:
        print_lines(
            [
                f"{done.path}: {done.file_bytes:,} bytes, the same as before",
                f"{found['share_of_gap']:.0%} of the error is gone; recorded in {plan}, with one line per evaluation in {journal.name}",
            ]
        )
    print_lines([] if again is None else again.lines)
    best = done.path if again is None or again.path is None else again.path
    if best is not None:
        say(f"next: mpq eval {best} --data FILE{code_options(wanted.model, {}, trust=trust)}")


def _with_text(model: LoadedModel, data: Data, windows: int, *, seed: int) -> Data:
    """The samples, and windows that the model writes; other ones than `mpq apply` lets it write.

    Raises:
        UsageError: if it cannot write.
    """
    from mpq.models.inputs.own_text import asked_text

    return asked_text(model.module, data, windows, seed=seed + _OTHER_TEXT)


def _settings(plan: Plan, level: str | None, epochs: int | None, minutes: float | None, rate: float | None) -> TrainSettings:
    from mpq.recovery.training.settings import TrainSettings, level_for

    if level is None:
        level, reason = level_for(plan.layers.values())
        say(f"level {level}: {reason}")
    return TrainSettings(cast("Level", level), EPOCHS if epochs is None else epochs, minutes, rate)
