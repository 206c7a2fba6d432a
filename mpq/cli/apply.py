"""`mpq apply`: a plan becomes an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.cli import complete
from mpq.cli.console import fallback_lines, print_json, print_lines, progress, progress_in_turn, say, suggest, warn
from mpq.cli.find_inputs import check_output, located_model, named_inputs, reopen_data, reopen_model, stem_of
from mpq.cli.next_step import code_options, python_load
from mpq.cli.options import Cache, Device, Factory, Json, MaxMemory, Reference, Trust, cache_folder, memory_limit
from mpq.cli.replaced import say_replaced
from mpq.config import OWN_TEXT_TIMES, OWN_TEXT_TOKENS, TUNE_MINUTES, TUNE_WORK
from mpq.errors import FormatError, MpqError, UsageError
from mpq.export.registry import TARGETS
from mpq.shown import bits_text, times_smaller

if TYPE_CHECKING:
    from mpq.data.dataset import Data
    from mpq.export.base import Options
    from mpq.export.run import Exported
    from mpq.models.sources.loaded import LoadedModel
    from mpq.records.plan import Plan


def command(
    plan: Annotated[Path, typer.Argument(help="The plan.")] = Path("plan.yaml"),
    model: Reference = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: MODEL.mpq.safetensors next to the plan]")] = None,
    recovery: Annotated[
        bool,
        typer.Option(
            help="Recover quality at the same size: sequential re-quantization, bias correction, block reconstruction and tuning. Each is "
            "kept only if held-out samples agree."
        ),
    ] = True,
    corrections: Annotated[bool, typer.Option(hidden=True, help="The old name of --recovery.")] = True,
    sequential: Annotated[
        bool, typer.Option(help="Quantize each layer once more, for the inputs that the quantized layers before it give.")
    ] = True,
    reconstruct: Annotated[
        bool, typer.Option(help="Train each block in turn to reproduce the outputs that it has in the unquantized model.")
    ] = True,
    tune: Annotated[bool, typer.Option(help="Tune codes, scales, biases and norms toward the unquantized model's outputs.")] = True,
    own_text: Annotated[
        int | None,
        typer.Option(
            "--own-text",
            metavar="WINDOWS",
            show_default=False,
            help="Windows of text that a language model writes itself, for recovery to use in addition to the calibration data; 0 for "
            f"none. [default: enough to reach {OWN_TEXT_TOKENS:,} tokens, at most {OWN_TEXT_TIMES} times the given windows]",
        ),
    ] = None,
    tune_work: Annotated[
        float,
        typer.Option(
            "--tune-work",
            metavar="TERAFLOPS",
            help="Work allowed for each of --sequential, --reconstruct and --tune, in 10^12 floating-point operations. If that is too "
            "little, they use fewer passes and samples. The result is the same on every machine.",
        ),
    ] = TUNE_WORK,
    tune_minutes: Annotated[
        float,
        typer.Option(
            "--tune-minutes",
            metavar="MINUTES",
            help="Emergency stop for each of --sequential, --reconstruct and --tune. If it stops a step, the result depends on the "
            "machine, and the artifact says so.",
        ),
    ] = TUNE_MINUTES,
    allow_unchanged: Annotated[
        bool, typer.Option("--allow-unchanged", help="Do not report layers that are exactly representable in their scheme.")
    ] = False,
    fingerprint: Annotated[
        bool,
        typer.Option(
            "--fingerprint/--no-fingerprint",
            help="Put a digest of each layer's weights into the header, for `mpq verify`. The size of the file stays the same.",
        ),
    ] = True,
    sketches: Annotated[
        bool | None,
        typer.Option(
            "--sketches/--no-sketches",
            show_default=False,
            help="Put sketches of the calibration data into the header, for `mpq monitor`: 360 bytes for each of up to 12 tensors. Unless "
            "`mpq search --sketches` counted them, the file is larger than the plan predicts, which a budget on the file may forbid. "
            "[default: as the plan says]",
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(
            "--shards",
            metavar="FOLDER",
            help="For models larger than memory: write one file to this folder for each safetensors file of the model. The model is never "
            "loaded.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TARGET",
            autocompletion=complete.named(TARGETS),
            help="Also export the artifact for another program, like `mpq export`: for example pt2.",
        ),
    ] = None,
    offload: Annotated[
        Path | None,
        typer.Option(
            "--offload",
            metavar="FOLDER",
            help="For Hugging Face folders larger than memory: weights stay in their safetensors files, and what is made goes to unnamed "
            "files in this folder, which needs room for about three times the model. Layers and blocks are quantized and trained one after "
            "another; tuning, which needs all of them, is left out.",
            rich_help_panel="Model",
        ),
    ] = None,
    max_memory: MaxMemory = None,
    cache: Cache = None,
    device: Device = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Write the packed, smaller model that a plan describes.

    The plan names the model, and its hash is checked. The file has exactly the size that the plan predicts.

    Example: mpq apply plan.yaml
    """
    if shards is not None and device not in (None, "cpu"):
        raise UsageError(f"--shards reads weights from files and quantizes them on the CPU: leave out --device {device}")
    if shards is not None and (output is not None or to is not None):
        raise UsageError("--shards writes a folder of files: leave out --output and --to (--to needs the model in memory)")
    limit = memory_limit(max_memory, offload)
    if offload is not None and (shards is not None or to is not None):
        raise UsageError("--offload is for an artifact in one file: leave out --shards and --to")
    if not plan.exists():
        raise FormatError(f"{plan} does not exist: run `mpq search` first, or name the plan")
    if to is not None:
        TARGETS.kind(to)

    from mpq.records.plan import read_plan
    from mpq.records.plan_budget import check_plan_budget
    from mpq.records.plan_sketches import with_sketches

    searched = read_plan(plan)
    check_plan_budget(searched)
    wanted = with_sketches(searched, sketches)
    if shards is not None:
        if wanted.sketches is not None:
            raise UsageError(
                "sketches need the whole model and its data, which --shards never loads: add --no-sketches, or leave --shards out"
            )
        _apply_shards(wanted, plan, model, shards, json=json)
        return

    from mpq.apply.run import apply
    from mpq.export.base import Options
    from mpq.records.unsearched import unsearched_line
    from mpq.tensors.quantizers.registry import quantizer_named

    target = output or plan.with_name(f"{stem_of(model or located_model(wanted.model, plan))}.mpq.safetensors")
    check_output(target, inputs=(plan, model, *named_inputs(wanted.model, wanted.data, plan)))
    say_replaced(target, wanted)
    options: dict[str, Any] = {"device": device, "offload": offload, "max_memory": limit}
    loaded = reopen_model(wanted.model, plan, given=model, factory=factory, trust=trust, **options)
    recover = recovery and corrections
    needed = quantizer_named(wanted.quantizer).needs_statistics or wanted.sketches is not None
    data = _data(wanted, plan, loaded, needed=needed, trust=trust) if wanted.data and (needed or recover) else None
    with progress_in_turn() as stage:
        done = apply(
            loaded,
            wanted,
            target,
            data=data,
            recovery=recover,
            sequential=sequential,
            reconstruct=reconstruct,
            tune=tune,
            own_text=own_text,
            tune_work=tune_work,
            tune_minutes=tune_minutes,
            allow_unchanged=allow_unchanged,
            cache=cache_folder(cache, plan),
            fingerprint=fingerprint,
            on_progress=stage("apply"),
            on_recovery=stage,
        )
    exported = None if to is None else _exported(done.path, to, Options(model=model, plan=plan, factory=factory, trust=trust))
    size = wanted.size
    if json:
        sizes = {"file_bytes": done.file_bytes, "original_bytes": done.original_bytes, "size": size.to_dict()}
        sizes |= {} if exported is None else {"exported": str(exported.path), "exported_bytes": exported.bytes}
        decided = [decision.to_dict() for decision in done.decisions]
        print_json({"output": str(done.path), **sizes, "recovery": decided, "fallbacks": dict(done.fallbacks), "unchanged": done.unchanged})
        return
    for line in (*fallback_lines(done.fallbacks), *done.notes):
        say(line)
    print_lines(
        [
            f"{done.path}: {done.file_bytes:,} bytes, as predicted{_sketched(searched, wanted)}",
            f"{times_smaller(done.original_bytes, done.file_bytes)} than the {done.original_bytes:,} bytes of parameters and buffers",
            f"{bits_text(size.effective_bits)} bits per weight over the layers, {bits_text(size.file_effective_bits)} over the file",
            unsearched_line(size.file_bytes, size.layer_bytes, dtype=wanted.rest.dtype),
            *(decision.line for decision in done.decisions),
            *([] if exported is None else [f"{exported.path}: {exported.bytes:,} bytes, for {to}"]),
        ]
    )
    code = code_options(wanted.model, {}, trust=trust)
    suggest(f"mpq eval {done.path} --data FILE{code}; in Python: {python_load(done.path, loaded, trust=trust)}")


def _sketched(searched: Plan, wanted: Plan) -> str:
    """What sketches change about the size that the plan predicts."""
    more = wanted.size.file_bytes - searched.size.file_bytes
    if more < 0:
        return f", less the {-more:,} of its sketches"
    return f", plus {more:,} of sketches, which the plan does not count" if more else ""


def _exported(artifact: Path, target: str, options: Options) -> Exported:
    from mpq.export.run import export

    return export(artifact, target, options=options)


def _apply_shards(wanted: Plan, plan: Path, model: Path | None, folder: Path, *, json: bool) -> None:
    from mpq.apply.shard_job import apply_shards
    from mpq.records.unsearched import unsearched_line

    source = model or located_model(wanted.model, plan)
    with progress("apply") as advance:
        done = apply_shards(source, wanted, folder, on_progress=advance)
    if json:
        print_json(
            {"output": str(done.index), "files": [str(file) for file in done.files], "file_bytes": done.file_bytes, "kept": done.kept}
        )
        return
    kept = f", {done.kept} of them kept from the earlier run" if done.kept else ""
    print_lines([f"{done.index}: {len(done.files)} files{kept}, {done.file_bytes:,} bytes; every file matches its predicted size"])
    print_lines([unsearched_line(done.file_bytes, wanted.size.layer_bytes, dtype=wanted.rest.dtype)])
    if done.file_bytes != wanted.size.file_bytes:
        say(f"the plan's {wanted.size.file_bytes:,} bytes are for a single file with one header")
    say(f"in Python: mpq.load('{done.index}')")


def _data(plan: Plan, file: Path, model: LoadedModel, *, needed: bool, trust: bool) -> Data | None:
    """The data of the plan. If it is missing, a quantizer that needs no data continues without recovery."""
    try:
        return reopen_data(plan.data, file, model, trust=trust)
    except MpqError as error:
        if needed:
            raise
        warn(f"no recovery: {error}")
        return None
