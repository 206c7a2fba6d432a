"""`mpq profile`: the time of each layer under each scheme on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpq.cli.console import print_json, print_lines, print_table, say
from mpq.cli.find_inputs import check_output, named_inputs, only_analysis, reopen_data, reopen_model, stem_of
from mpq.cli.options import Factory, Json, Reference, Trust
from mpq.errors import UsageError

_RUNTIMES = ("torch",)


def command(
    sensitivity: Annotated[Path | None, typer.Argument(help="Sensitivity file. [default: the one in this folder]")] = None,
    runtime: Annotated[str, typer.Option(metavar="|".join(_RUNTIMES), help="What runs the layers.")] = "torch",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time to spend on each candidate.")] = 2.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write. [default: NAME.latency.csv]")] = None,
    model: Reference = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Measure the time of each layer under each scheme on this machine, for `mpq search --max-latency`.

    Every layer runs inside the model with packed weights, as `mpq.load(packed=True)` runs it, on copies of the first calibration sample.
    Each time is the shortest of several. The file is a cost file as `--cost` takes it; its first line names machine, versions, threads and
    model.

    Example: mpq profile resnet20.sensitivity.jsonl --batch-size 8
    """
    if runtime not in _RUNTIMES:
        raise UsageError(f"--runtime '{runtime}' is unknown: use {', '.join(_RUNTIMES)}")
    source = sensitivity or only_analysis(Path())

    from mpq.records.latency import ENDING, LatencyFacts, this_machine, write_latencies
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(source)
    header = table.header
    path = output or source.with_name(stem_of(source) + ENDING)
    check_output(path, inputs=(source, *named_inputs(header.model, header.data, source)))
    if not header.data:
        raise UsageError(f"{source.name} was made without data, so the model cannot be run: analyze with --calib")

    import torch

    from mpq.runtime.profile import profile, profiled_batch, threads

    loaded = reopen_model(header.model, source, given=model, factory=factory, trust=trust)
    data = reopen_data(header.data, source, loaded, trust=trust)
    if data.fixed_batch not in (None, batch_size):
        say(f"the model takes exactly {data.fixed_batch} samples at once, so these are timed")
        batch_size = data.fixed_batch or batch_size
    batch = profiled_batch(data.batches[0], batch_size)
    found = profile(loaded.module, header.layers, header.candidates, batch, seconds=seconds)
    times = {pair: 1e3 * spent for pair, spent in found.layers.items()}
    facts = LatencyFacts(runtime, this_machine(), str(torch.__version__), threads(), loaded.sha256, batch_size, 1e3 * found.rest)
    write_latencies(path, facts, times)
    if json:
        print_json({"output": str(path), "whole_ms": 1e3 * found.whole, "rest_ms": facts.rest_ms, "layers": len(header.layers)})
        return
    print_table(
        ["every layer under", "predicted", "measured"],
        [[f"candidate {place + 1}", f"{1e3 * guess:.3g} ms", f"{1e3 * true:.3g} ms"] for place, (guess, true) in enumerate(found.uniform)],
        title=f"one call with {batch_size} samples, {facts.threads} threads; unquantized {1e3 * found.whole:.3g} ms",
    )
    print_lines([f"outside of the layers: {facts.rest_ms:.3g} ms"])
    say(f"wrote {path}; next: mpq search {source} --max-latency {1e3 * min(true for _, true in found.uniform):.2g}ms")
