"""`mpq bench`: compares the packed model with the reference on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.cli.console import print_json, print_lines, print_table, progress, say
from mpq.cli.find_inputs import EXAMPLES, read_data, reopen_model
from mpq.cli.find_latency import predicted_latency
from mpq.cli.load_cost import loading_of
from mpq.cli.options import Dtype, Factory, Json, Reference, SeqLen, Trust, dtype_of
from mpq.config import DataSettings
from mpq.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from mpq.data.dataset import Batch
    from mpq.models.sources.loaded import LoadedModel
    from mpq.runtime.speed import Pair

_TOKENS = 32


def command(
    artifact: Annotated[Path, typer.Argument(help="What `mpq apply` wrote.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="Inputs; one sample is enough. [default: example inputs, or tokens]"),
    ] = None,
    model: Reference = None,
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", metavar="N,N,…", help="Samples per batch.")] = "1,8,32",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens to decode, for language models.")] = 64,
    seq_len: SeqLen = None,
    dtype: Dtype = None,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Compare the packed model with the reference on this machine: speed, loading, memory.

    Both models are called in turn, and the shortest times count. Measured are latency by batch size, tokens per second (greedy decoding
    with a cache, for Hugging Face language models), and the time and memory of loading in a separate process. --dtype adds a column for the
    same model with unpacked weights in that dtype, to separate the gain of packing from the gain of the dtype.

    Example: mpq bench resnet20.mpq.safetensors --batch-sizes 1,64
    """
    from mpq.records.artifact_files import artifact_bytes, read_header
    from mpq.records.stands_alone import stands_alone

    sizes, wanted = _sizes(batch_sizes), dtype_of(dtype)
    header = read_header(artifact)

    import torch

    from mpq.runtime.load import load
    from mpq.runtime.speed import latencies, tokens_per_second

    reference = reopen_model(header.model, artifact, given=model, factory=factory, trust=trust)
    own_module = not stands_alone(header, artifact)

    def loaded(*, packed: bool) -> nn.Module:
        module = reopen_model(header.model, artifact, given=model, factory=factory, trust=trust, again=True).module if own_module else None
        return load(artifact, module, packed=packed, dtype=wanted, activations=False)

    packed, unpacked = loaded(packed=True), None if wanted is None else loaded(packed=False)
    sample = _sample(data, reference, seq_len)
    with progress("bench") as advance:
        pairs, refused = latencies(reference.module, packed, sample, sizes, unpacked=unpacked, dtype=wanted)
        advance(1, 3, "latency")
        if not pairs:
            raise UsageError(f"the model accepts none of the batch sizes {batch_sizes}: give the one it was exported with, --batch-sizes N")
        vocabulary = (reference.config or {}).get("vocab_size")
        decoding = (
            tokens_per_second(reference.module, packed, vocabulary=vocabulary, tokens=tokens, unpacked=unpacked) if vocabulary else None
        )
        advance(2, 3, "decoding")
        assert reference.path is not None
        place: dict[str, Any] = {"reference": reference.path, "factory": reference.factory, "trust": trust, "dtype": dtype}
        loads = {what: loading_of(what, artifact, **place) for what in ("reference", "packed")}
    predicted = predicted_latency(artifact, header.schemes, model=str(header.model.get("sha256"))) if wanted is None else None
    told = _predicted(pairs, predicted)
    if refused:
        say(f"batch sizes that the model does not accept: {', '.join(map(str, refused))}")
    if json:
        print_json(
            {
                "artifact": str(artifact),
                "file_bytes": artifact_bytes(artifact),
                "threads": torch.get_num_threads(),
                "dtype": dtype,
                "latency": {pair.label: _figures(pair) for pair in pairs},
                **({} if told is None else {"predicted": told}),
                "tokens_per_second": None if decoding is None else _figures(decoding),
                "load": {what: vars(found) for what, found in loads.items()},
            }
        )
        return
    rows = [_row(pair, 1e3, " ms") for pair in pairs] + ([] if decoding is None else [_row(decoding, 1, "/s")])
    before, after = loads["reference"], loads["packed"]
    rows.append(["load", f"{before.seconds:.2f} s", f"{after.seconds:.2f} s", f"{before.seconds / after.seconds:.2f}"])
    for label, kind in (("memory", "resident_bytes"), ("peak while loading", "peak_bytes")):
        rows.append(_memory(label, getattr(before, kind), getattr(after, kind)))
    columns = ["metric", "reference", "packed", "times better"]
    if dtype is not None:
        columns.append(f"unpacked {dtype}")
        rows = [row + [""] * (len(columns) - len(row)) for row in rows]
    print_table(columns, rows, title=f"{artifact.name}, {torch.get_num_threads()} threads")
    if told is not None:
        measured = "" if told["measured"] is None else f", measured {1e3 * told['measured']:.3g} ms"
        print_lines([f"batch {told['batch']}: predicted {1e3 * told['seconds']:.3g} ms by `mpq profile`{measured}"])
    print_lines(
        [f"the file has {artifact_bytes(artifact) / 1e6:,.1f} MB; `mpq show {artifact} --kernels` shows which kernel runs each layer"]
    )


def _predicted(pairs: list[Pair], predicted: tuple[float, int] | None) -> dict[str, Any] | None:
    """What the profile predicts for the packed model, in seconds, next to what was measured with as many samples."""
    if predicted is None:
        return None
    milliseconds, batch = predicted
    measured = next((pair.packed for pair in pairs if pair.label == f"batch {batch}"), None)
    return {"batch": batch, "seconds": milliseconds / 1e3, "measured": measured}


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--batch-sizes {text} is not a list of batch sizes: write for example 1,8,32")
    return [int(part) for part in parts]


def _sample(data: str | None, reference: LoadedModel, seq_len: int | None) -> Batch:
    """One sample: from the given data, else an example input, else tokens 0, 1, 2, ..."""
    if data is not None:
        return read_data(data, reference, DataSettings(seq_len, 1, 1)).batches[0]
    if reference.example_inputs is not None:
        return read_data(EXAMPLES, reference, DataSettings()).batches[0]

    import torch

    from mpq.data.dataset import Batch

    vocabulary = (reference.config or {}).get("vocab_size")
    if vocabulary is None:
        raise DataError(f"a {reference.kind} model has no example inputs: give --data FILE; one sample is enough")
    return Batch((), {"input_ids": torch.arange(seq_len or _TOKENS).remainder(vocabulary).unsqueeze(0)})


def _figures(pair: Pair) -> dict[str, float]:
    found = {"reference": pair.reference, "packed": pair.packed, "gain": pair.gain}
    return found if pair.unpacked is None else found | {"unpacked": pair.unpacked}


def _row(pair: Pair, times: float, unit: str) -> list[str]:
    unpacked = [] if pair.unpacked is None else [f"{times * pair.unpacked:.3g}{unit}"]
    return [pair.label, f"{times * pair.reference:.3g}{unit}", f"{times * pair.packed:.3g}{unit}", f"{pair.gain:.2f}", *unpacked]


def _memory(label: str, before: int | None, after: int | None) -> list[str]:
    if before is None or after is None:
        return [label, "-", "-", "-"]
    return [label, f"{before / 1e6:.1f} MB", f"{after / 1e6:.1f} MB", f"{before / max(after, 1):.2f}"]
