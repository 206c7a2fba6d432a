"""`mpq analyze`: a model and some data become a sensitivity file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from mpq.analyze.methods.registry import METHODS
from mpq.cli import complete
from mpq.cli.analyze_ranks import Opening, follow_torchrun, followed, ranks_for, report_part
from mpq.cli.console import fallback_lines, figure, peak_line, print_json, print_table, progress, say, suggest, warn
from mpq.cli.find_inputs import calibration_source, check_output, how_read, read_data, removed_if_bare, stem_of
from mpq.cli.next_step import code_options
from mpq.cli.options import (
    AllowUnexpected,
    BatchAxis,
    BatchSize,
    Cache,
    CheckpointKey,
    Config,
    Device,
    Factory,
    Json,
    Mask,
    MaxMemory,
    NumSamples,
    SeedEachForward,
    SeqLen,
    Split,
    TextField,
    Trust,
    cache_folder,
    default_of,
    memory_limit,
    merged,
)
from mpq.config import LARGE_MEMORY, AnalysisSettings, DataSettings, settings_from
from mpq.models.running.metric_registry import METRICS
from mpq.registry import either
from mpq.shown import bits_cell
from mpq.tensors.quantizers.registry import QUANTIZERS
from mpq.writing.locks import refuse_held

_DEFAULTS = AnalysisSettings()
_DATA = tuple(each.name for each in fields(DataSettings))
_SHOWN = 12
WITHOUT_DATA = "weight"  # the method that needs no data


def command(
    model: Annotated[
        Path,
        typer.Argument(
            help="torch.export archive, TorchScript, Hugging Face folder, hf://ORG/NAME@REVISION, or state dict with --builder."
        ),
    ],
    calib: Annotated[
        str | None,
        typer.Option(
            "--calib",
            "--calibration",
            "--data",
            metavar="FILE",
            help="Inputs: .pt, .npz, .npy, .safetensors, text, JSONL (file.jsonl?split=train filters lines), JSON, CSV, Parquet or a "
            "`datasets` folder, a folder of images (photos?resize=256&crop=224), or package.module:callable. "
            "[default: calibration.* next to the model, else an exported program's example inputs]",
            rich_help_panel="Data",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: MODEL.sensitivity.jsonl in this folder]")] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEMES",
            autocompletion=complete.candidates,
            help="Bits (4,8,16), ranges (2..8), schemes (int4-g32, int4-asym, fp16), fine: least error per byte, slower once packed, "
            "or coded: smallest files, as large as int8 once loaded. "
            f"{default_of(_DEFAULTS, 'candidates')}",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.named(METRICS, "auto"),
            help=f"{either(METRICS)}; auto uses KL divergence if the output is logits. [default: auto]",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="Outputs of the model to compare, by name or glob, each optionally with a weight. "
            "[default: all that are not computed from others]",
        ),
    ] = None,
    quantizer: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.named(QUANTIZERS, "auto"),
            help=f"How codes are chosen: {', '.join(QUANTIZERS)}; auto tries the best two on this model. "
            f"{default_of(_DEFAULTS, 'quantizer')}",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.named(METHODS, "auto"),
            help=f"How sensitivities are found: {METHODS.described()}; auto measures if that is affordable. "
            f"{default_of(_DEFAULTS, 'method')}",
        ),
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Layers to search: exact names, globs, or re:… [default: all]")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave unquantized.")] = None,
    activations: Annotated[
        list[str] | None,
        typer.Option(
            metavar="8|8d",
            help="Also measure the tensors between layers as 8-bit integers: 8 with fixed ranges, 8d with a scale per token for matrix "
            "products; may be repeated. [default: none]",
        ),
    ] = None,
    equalize: Annotated[
        bool | None,
        typer.Option(
            "--equalize/--no-equalize",
            help="With --activations: scale channels by powers of two in the weights before and behind a tensor, if held-out samples "
            "agree. [default: equalize]",
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help=f"Share of the samples that the analysis does not see; the search decides with them. {default_of(_DEFAULTS, 'held_out')}"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Seed of the split. {default_of(_DEFAULTS, 'seed')}")] = None,
    seq_len: SeqLen = None,
    num_samples: NumSamples = None,
    batch_size: BatchSize = None,
    mask: Mask = None,
    batch_axis: BatchAxis = None,
    text_field: TextField = None,
    seed_each_forward: SeedEachForward = False,
    split: Split = None,
    factory: Factory = None,
    checkpoint_key: CheckpointKey = None,
    allow_unexpected: AllowUnexpected = False,
    trust: Trust = False,
    offload: Annotated[
        Path | None,
        typer.Option(
            "--offload",
            "--offload-folder",
            metavar="FOLDER",
            help="For Hugging Face folders larger than memory: weights stay in their safetensors files; what the analysis makes goes to "
            "unnamed files in this folder, which needs room for the model under each candidate.",
            rich_help_panel="Model",
        ),
    ] = None,
    max_memory: MaxMemory = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that share the work, each with the model and one thread (or OMP_NUM_THREADS): the values are the same for any "
            "number. torchrun starts them on several machines. auto: one process with all threads; quantizing may start more. "
            "[default: auto]",
        ),
    ] = "auto",
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="For machines that never meet: only part K of N of the layers. `mpq merge` joins the files."),
    ] = None,
    cache: Cache = None,
    device: Device = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Measure how much quantizing each layer changes the model's output.

    One layer is quantized with one scheme, all others stay unquantized, and the error at the output is measured on the calibration samples.
    Every value is written to disk as soon as it is measured. Run the command again to resume a killed analysis; with more candidates or a
    larger --num-samples, only the new values are measured.

    Example: mpq analyze resnet20.pt2 --calib calibration.pt --candidates 2..8,16
    """
    options = {
        "calib": calib,
        "candidates": candidates,
        "metric": metric,
        "outputs": outputs,
        "quantizer": quantizer,
        "method": method,
        "targets": targets,
        "ignore": ignore,
        "activations": activations,
        "equalize": equalize,
        "held_out": held_out,
        "seed": seed,
        "seq_len": seq_len,
        "num_samples": num_samples,
        "batch_size": batch_size,
        "mask": mask,
        "batch_axis": batch_axis,
        "text_field": text_field,
        "seed_each_forward": seed_each_forward or None,
        "split": split,
    }
    choices = merged("analyze", config, options)
    given = choices.pop("calib", None)
    reading = settings_from(DataSettings, {name: choices.pop(name, None) for name in _DATA})
    settings = settings_from(AnalysisSettings, choices)

    target = output or Path(f"{stem_of(model)}.sensitivity.jsonl")
    shared = cache_folder(cache, target)
    limit = memory_limit(max_memory, offload)
    loading = {"factory": factory, "trust": trust, "offload": offload, "max_memory": limit, "key": checkpoint_key, "device": device}
    opening = Opening(model, {**loading, "allow_unexpected": allow_unexpected}, given, reading, settings.seed, shared, part)
    if followed():
        follow_torchrun(opening)
        return
    check_output(target, inputs=(model, given, config))
    refuse_held(target, work="analysis")
    from mpq.analyze.run import analyze
    from mpq.evidence.inversions import inversion_lines
    from mpq.evidence.self_check import self_check_lines, self_check_warnings
    from mpq.models.sources.load import load_model
    from mpq.records.coverage import coverage_lines
    from mpq.records.measured_activations import activation_lines

    loaded = load_model(model, **opening.loading)
    for note in loaded.notes:
        say(note)
    source = calibration_source(given, loaded, needed=settings.method != WITHOUT_DATA)
    check_output(target, inputs=(source,))
    data = None if source is None else read_data(source, loaded, reading, seed=settings.seed)
    say(f"model: {loaded.hub or model} ({loaded.kind}); data: {'none' if data is None else data.description}")
    read = None if source is None else how_read(source, reading, target)
    with removed_if_bare(target), ranks_for(workers, opening) as (ranks, codes), progress("analyze") as advance:
        table = analyze(
            loaded,
            data,
            settings=settings,
            output=target,
            reading=read,
            cache=codes,
            workers="1" if ranks else workers,
            part=part,
            ranks=ranks if data is not None else None,
            tell=say,
            on_progress=advance,
        )
    if part is not None and not table.finished:
        report_part(table, target, part, json=json)
        return
    for line in self_check_warnings(table.finish, method=str(table.header.settings["method"])):
        warn(line)
    fallbacks = fallback_lines((table.finish or {}).get("fallbacks", {}))
    for note in (
        *table.notes,
        *(note for note in table.header.notes if note not in loaded.notes),
        *(table.finish or {}).get("notes", ()),
        *fallbacks,
        *inversion_lines(table),
        *self_check_lines(table.finish),
        *activation_lines(table.finish, table.activations),
    ):
        say(note)
    if offload is not None or (table.finish or {}).get("cost", {}).get("expected_memory_bytes", 0) >= LARGE_MEMORY:
        say(peak_line(table.finish))
    frame = table.frame()
    if json:
        facts = {"output": str(target), "layers": len(table.layers), "finish": table.finish}
        print_json({**facts, "coverage": (table.finish or {}).get("coverage"), "table": frame.to_dict("records")})
        return
    worst = frame.sort_values("error", ascending=False).head(_SHOWN).to_dict("records")
    rows = [[row["layer"], row["scheme"], bits_cell(row["effective_bits"]), figure(row["error"], row["stderr"])] for row in worst]
    print_table(["most sensitive", "scheme", "bpw", table.metric], rows)
    say(f"wrote {target}: {len(table.layers)} layers, {len(frame)} values")
    if shared is not None and shared.is_dir():
        say(f"codes and statistics for search and apply are kept in {shared}; it is safe to delete, and --cache off keeps none")
    for line in coverage_lines(table.finish):
        say(line)
    named = "" if list(Path().glob("*.sensitivity.jsonl")) == [target] else f" {target}"  # the only file needs no name
    unmeasured = " --trials 0" if data is None else ""
    code = code_options(table.header.model, table.header.data, trust=trust)
    suggest(f"mpq search{named} --budget 4.5bits{unmeasured}{code}")
