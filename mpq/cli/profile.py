"""`mpq profile`: the time of each layer under each scheme on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.cli.console import print_json, print_lines, print_table, progress, say, warn
from mpq.cli.find_inputs import check_output, named_inputs, only_analysis, reopen_data, reopen_model, stem_of
from mpq.cli.options import Factory, Json, Reference, Trust, cache_folder
from mpq.errors import UsageError
from mpq.export.registry import RUNTIMES

if TYPE_CHECKING:
    from mpq.formats.scheme import Scheme

_TORCH = "torch"
_RUNTIMES = (_TORCH, *RUNTIMES)
_FAR = 0.2  # of a time


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

    With torch, every layer runs inside the model with packed weights, as `mpq.load(packed=True)` runs it. With another runtime, the model
    is exported under each scheme, with integer activations if the analysis has them, and the runtime's profiler tells the time of each
    layer. Each time is the shortest of several, on copies of the first calibration sample. The file is a cost file as `--cost` takes it;
    its first line names machine, versions, threads and model.

    Example: mpq profile resnet20.sensitivity.jsonl --batch-size 8
    """
    if runtime not in _RUNTIMES:
        raise UsageError(f"--runtime '{runtime}' is unknown: use {', '.join(_RUNTIMES)}")
    source = sensitivity or only_analysis(Path())

    from mpq.records.latency import ENDING, LatencyFacts, this_machine, write_latencies
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(source)
    header = table.header
    path = output or source.with_name(stem_of(source) + ("" if runtime == _TORCH else f".{runtime}") + ENDING)
    check_output(path, inputs=(source, *named_inputs(header.model, header.data, source)))
    if not header.data:
        raise UsageError(f"{source.name} was made without data, so the model cannot be run: analyze with --calib")

    import torch

    from mpq.export.timing import version_of
    from mpq.runtime.profile import profile, profiled_batch, threads

    version = "" if runtime == _TORCH else version_of(runtime)  # before the long work
    loaded = reopen_model(header.model, source, given=model, factory=factory, trust=trust)
    data = reopen_data(header.data, source, loaded, trust=trust)
    if data.fixed_batch not in (None, batch_size):
        say(f"the model takes exactly {data.fixed_batch} samples at once, so these are timed")
        batch_size = data.fixed_batch or batch_size
    batch = profiled_batch(data.batches[0], batch_size)
    if runtime == _TORCH:
        found = profile(loaded.module, header.layers, header.candidates, batch, seconds=seconds)
        layers, rest, whole = found.layers, found.rest, found.whole
        checks = {f"candidate {place + 1}": pair for place, pair in enumerate(found.uniform)}
    else:
        from mpq.deployed_times import deployed_times

        chosen: Any = {"factory": factory, "trust": trust, "cache": cache_folder(None, source)}
        with progress("profile") as advance:
            made = deployed_times(
                loaded, table, data, batch, runtime=runtime, threads=threads(), seconds=seconds, on_progress=advance, **chosen
            )
        layers, rest, whole, checks = made.layers, 0.0, made.whole, dict(made.checks)
    own: Any = {"version": version, "activations": runtime != _TORCH and bool(table.activations)}
    facts = LatencyFacts(runtime, this_machine(), str(torch.__version__), threads(), loaded.sha256, batch_size, 1e3 * rest, **own)
    write_latencies(path, facts, {pair: 1e3 * spent for pair, spent in layers.items()})
    if json:
        print_json({"output": str(path), "whole_ms": 1e3 * whole, "rest_ms": facts.rest_ms, "layers": len(header.layers)})
        return
    print_table(
        ["every layer under", "predicted", "measured"],
        [[label, f"{1e3 * guess:.3g} ms", f"{1e3 * true:.3g} ms"] for label, (guess, true) in checks.items()],
        title=f"one call with {batch_size} samples, {facts.threads} threads; unquantized {1e3 * whole:.3g} ms",
    )
    if runtime == _TORCH:
        print_lines([f"outside of the layers: {facts.rest_ms:.3g} ms"])
    else:
        _caution(checks, header.candidates)
    say(f"wrote {path}; next: mpq search {source} --max-latency {1e3 * min(true for _, true in checks.values()):.2g}ms")


def _caution(checks: Mapping[str, tuple[float, float]], candidates: Mapping[str, Sequence[Scheme]]) -> None:
    """Warn if the times of layers do not add up between schemes of different kinds."""
    from mpq.formats.activations import is_integer_product

    guess, true = list(checks.values())[-1]
    if abs(guess - true) <= _FAR * true:
        return
    schemes = dict.fromkeys(str(each) for found in candidates.values() for each in found if is_integer_product(each))
    warn(
        f"times do not add up between integer schemes and others ({1e3 * guess:.3g} ms predicted, {1e3 * true:.3g} ms measured): "
        + (f"search with --candidates '*={','.join(schemes)}'" if schemes else "measure a plan before you rely on them")
    )
