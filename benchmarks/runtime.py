"""Packed layers and models against fp32 and bf16: speed, exactness, memory; ratios within one run.

    python -m benchmarks.runtime --models DIR [--only linear,decode] [--threads 1]

DIR holds stories15m/ and text/tinystories.jsonl. Each bar stands with its figure. Calls take turns and the shortest time of each counts, so
that a busy machine slows all alike; more threads than free cores make every figure meaningless. With one thread, the time of linear layers
is that of the processor, which leaves out what other programs take. The bar at one row is for the packed layer in bfloat16, where torch has
int4 kernels, against the layer in fp32, as in a model that is loaded with dtype=torch.bfloat16; packed fp32 stands beside.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

import mpq
from mpq.cli.load_cost import loading_of
from mpq.formats.scheme import parse_scheme
from mpq.models.inputs.load_data import load_data
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import load_model
from mpq.records.plan import plan_for
from mpq.runtime.load import load
from mpq.runtime.speed import fastest, tokens_per_second
from mpq.tensors.kernels.choose import best_layout, kernel_for
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named

ROWS, SIZES = (1, 8, 128, 1024), (1024, 4096)
SCHEMES = ("int4-g32", "int4-g128", "int8")
ONE_ROW = {1024: 1.8, 4096: 5.0}  # times fp32, int4
NEVER_SLOWER = 1 / 1.1  # times bf16
TOLERANCE = 1e-5  # of the largest output, float32
SAME_SIZE = 1.5  # times the error that bfloat16 with dequantized weights makes
DECODING, MEMORY = 1.5, 1.3


def verdict(name: str, found: float, bar: float, *, least: bool = True) -> str:
    met = found >= bar if least else found <= bar
    return f"{name} {found:.2f} ({'at least' if least else 'at most'} {bar:.2f}: {'yes' if met else 'NO'})"


def packed(weight: torch.Tensor, text: str) -> PackedTensor:
    scheme = parse_scheme(text)
    quantized = quantizer_named("rtn").quantize(weight, scheme)
    return PackedTensor(
        best_layout(stored_codes(quantized.pack(), scheme, quantized.matrix), 2, weight.dtype), weight.shape, (0,), weight.dtype
    )


def linears(seconds: float) -> None:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for size in SIZES:
        weight = torch.randn(size, size)
        halves = weight.bfloat16()
        for text in SCHEMES:
            small, small16 = packed(weight, text), packed(halves, text)
            dense, scheme = small.dequantize(), parse_scheme(text)
            dense16 = small16.dequantize()
            for rows in ROWS:
                x = torch.randn(rows, size)
                x16 = x.bfloat16()
                pairs = ((x, weight), (x, small), (x16, halves), (x16, small16))
                calls: list[Callable[[], Any]] = [partial(linear, *pair) for pair in pairs]
                fp32, ours, bf16, ours16 = fastest(calls, seconds=seconds, clock=clock)
                kernels = [kernel_for(scheme, one.packed.layout, rows, one.dtype).name for one in (small, small16)]
                print(
                    f"{size:5} x {size} {text:9} {rows:5} rows: fp32 {1e6 * fp32:7.0f} us, packed {1e6 * ours:7.0f} ({kernels[0]}); "
                    f"bf16 {1e6 * bf16:7.0f}, packed {1e6 * ours16:7.0f} ({kernels[1]})"
                )
                one_row = rows == 1 and text.startswith("int4")
                times = [f"packed over fp32 {fp32 / ours:.2f}", f"packed bf16 over fp32 {fp32 / ours16:.2f}"]
                if one_row:
                    times[1] = verdict("packed bf16 over fp32", fp32 / ours16, ONE_ROW[size])
                times.append(verdict("packed bf16 over bf16", bf16 / ours16, NEVER_SLOWER))
                exact = linear(x, dense)
                times.append(verdict("error of packed fp32 x 1e6", 1e6 * error(linear(x, small), exact), 1e6 * TOLERANCE, least=False))
                exact = linear(x16.float(), small16.to(torch.float32).dequantize())
                plain, found = error(linear(x16, dense16), exact), error(linear(x16, small16), exact)
                times.append(verdict("root mean square error of packed bf16 over that of bf16", found / plain, SAME_SIZE, least=False))
                print("        " + "; ".join(times), flush=True)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest error over the largest output in float32; in bfloat16 the root of the mean square over that of the outputs."""
    difference = found.float() - exact
    if found.dtype == torch.float32:
        return float(difference.abs().max() / exact.abs().max())
    return float(difference.square().mean().sqrt() / exact.square().mean().sqrt())


def decode(models: Path, rounds: int) -> None:
    source = models / "stories15m"
    reference = load_model(source)
    data = load_data(str(models / "text" / "tinystories.jsonl"), model=reference, num_samples=2)
    layers = discover(reference.module, data.batches).layers
    schemes = {layer.name: parse_scheme("int4-g32") for layer in layers}
    facts = source_of(reference, str(source))
    rest = inventory(reference, layers, source=facts, quantizer="rtn")
    plan = plan_for(layers, schemes, model=facts, quantizer="rtn", rest=rest)
    with tempfile.TemporaryDirectory() as folder:
        path = mpq.apply(reference, plan, Path(folder) / "stories15m.mpq.safetensors").path
        whole = path.stat().st_size
        for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
            models_of_it: list[nn.Module] = [load(path, packed=packed, dtype=dtype) for packed in (True, False)]
            found = tokens_per_second(
                reference.module,
                models_of_it[0],
                vocabulary=reference.config["vocab_size"] if reference.config else 1,
                rounds=rounds,
                unpacked=models_of_it[1],
            )
            assert found is not None
            print(
                f"stories15m at {plan.size.effective_bits:.2f} bits, {name}: {found.reference:.1f} tokens/s in fp32, "
                f"{found.unpacked:.1f} unpacked in {name}, {found.packed:.1f} packed; " + verdict("packed over fp32", found.gain, DECODING)
            )
            loading = loading_of("packed", path, reference=source, factory=None, trust=False, dtype=name)
            if loading.own_bytes is not None and loading.peak_bytes is not None:
                print(
                    f"stories15m loaded in {name}: {whole:,} bytes of file, {loading.own_bytes:,} of memory, {loading.peak_bytes:,} at the "
                    "peak; " + verdict("memory over file", loading.own_bytes / whole, MEMORY, least=False),
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", default="linear,decode")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row of the linear layers")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    wanted = given.only.split(",")
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {given.threads} threads")
    with torch.inference_mode():
        if "linear" in wanted:
            linears(given.seconds)
        if "decode" in wanted:
            decode(given.models, rounds=8)


if __name__ == "__main__":
    main()
