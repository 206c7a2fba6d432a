"""`mpq monitor baseline`: sketches the data that a running model is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, progress, say
from mpq.cli.eval_artifact import header_of, quantized_in
from mpq.cli.find_inputs import check_output, read_data, reopen_model
from mpq.cli.options import BatchAxis, Factory, Json, Mask, NumSamples, SeqLen, TextField, Trust
from mpq.config import DataSettings


def command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What `mpq apply` wrote; the baseline is written next to it.")],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="FILE", help="Inputs, ideally data that the model was not trained on; read like `mpq analyze --calib`."
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="Watch the input of this module. [default: those of the artifact's sketches, or up to 8 that hold weights, evenly spaced]",
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="The model that the artifact was made from, if it has moved.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="Also write one row per sample (means, deviations, prediction) as a Parquet table, the reference for `mpq monitor table`.",
        ),
    ] = None,
    seq_len: SeqLen = None,
    num_samples: NumSamples = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Samples per call, like those of the running model; a row of --table is then one call. [default: 1]",
            rich_help_panel="Data",
        ),
    ] = None,
    mask: Mask = None,
    batch_axis: BatchAxis = None,
    text_field: TextField = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Record histograms of a quantized model's tensors on your data, under 1 kB per tensor; `mpq.monitor` compares the running model with
    them.

    Example: mpq monitor baseline model.mpq.safetensors --data calibration.pt
    """
    from mpq.monitor.baseline import baseline_of
    from mpq.monitor.log import columns_of
    from mpq.monitor.table import write_table
    from mpq.records.baseline import baseline_path, watched_names, write_baseline

    header = header_of(artifact)
    for output in (baseline_path(artifact), table):
        if output is not None:
            check_output(output, inputs=(artifact, reference, data))
    settings = DataSettings(
        seq_len=seq_len, num_samples=num_samples, batch_size=batch_size, mask=mask, batch_axis=batch_axis, text_field=text_field
    )
    model = reopen_model(header.model, artifact, given=reference, factory=factory, trust=trust)
    samples = read_data(data, model, settings)
    say(f"data: {samples.description}")
    rows: list[dict[str, float | None]] = []
    with progress("baseline") as advance:
        batches = samples.rebatch(samples.fixed_batch or batch_size or 1).batches  # as calls come
        quantized = quantized_in(artifact, header, lambda: model.module)
        names = layer if layer is not None or header.sketches is None else watched_names(header, header.sketches)
        found = baseline_of(quantized, batches, names, on_progress=advance, on_row=rows.append)
    path = write_baseline(found, artifact)
    if table is not None:
        write_table(columns_of(rows), table)
    if json:
        print_json({"baseline": str(path), "bytes": path.stat().st_size, "tensors": list(found.tensors)})
    else:
        print_lines([f"{path}: {path.stat().st_size:,} bytes, {len(found.tensors)} tensors: {', '.join(found.tensors)}"])
