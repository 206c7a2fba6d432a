"""Packed layers and models against fp32 and bf16: speed, exactness, memory; ratios within one run.

    python -m benchmarks.runtime --models DIR [--only linear,decode] [--threads 1]

DIR holds stories15m/ and text/tinystories.jsonl. Each bar stands with its figure. Calls take turns and the shortest time of each counts, so
that a busy machine slows all alike; more threads than free cores make every figure meaningless. "torch" is torch's own packed
matmul in bfloat16, for comparison.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

import mpq
from mpq.apply.load import load
from mpq.cli.loading import loading_of
from mpq.evaluate.speed import fastest, tokens_per_second
from mpq.models.data import load_data
from mpq.models.discover import discover
from mpq.models.inventory import inventory, source_of
from mpq.models.load import load_model
from mpq.records.plan import plan_for
from mpq.schemes import parse_scheme
from mpq.tensors.kernels.choose import best_layout, kernel_for
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named

ROWS, SIZES = (1, 8, 128, 1024), (1024, 4096)
SCHEMES = ("int4-g32", "int8")
ONE_ROW = {1024: 1.8, 4096: 5.0}  # times fp32, int4
NEVER_SLOWER = 1 / 1.1  # times bf16
TOLERANCE = 1e-5  # of the largest output
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


def torch_kernel(text: str, x16: torch.Tensor) -> Callable[[], Any]:
    """A call of torch's packed matmul on arbitrary weights as large as those of `linears`."""
    size = x16.shape[1]
    if text == "int8":
        codes, scales = torch.zeros(size, size, dtype=torch.int8), torch.ones(size, dtype=torch.bfloat16)
        return lambda: torch.ops.aten._weight_int8pack_mm(x16, codes, scales)
    table = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.zeros(size, size, dtype=torch.int32), 2)
    scales = torch.ones(size // 32, size, 2, dtype=torch.bfloat16)
    return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(x16, table, 32, scales)


def linears(seconds: float) -> None:
    for size in SIZES:
        weight = torch.randn(size, size)
        halves = weight.bfloat16()
        for text in SCHEMES:
            small = packed(weight, text)
            dense, small16 = small.dequantize(), small.to(torch.bfloat16)
            for rows in ROWS:
                x = torch.randn(rows, size)
                error = float((linear(x, small) - linear(x, dense)).abs().max() / linear(x, dense).abs().max())
                x16 = x.bfloat16()
                pairs = ((x, weight), (x, small), (x16, halves), (x16, small16))
                calls: list[Callable[[], Any]] = [partial(linear, *pair) for pair in pairs]
                fp32, ours, bf16, ours16, torchs = fastest([*calls, torch_kernel(text, x16)], seconds=seconds)
                kernel = kernel_for(parse_scheme(text), small.packed.layout, rows).name
                times = f"fp32 {1e6 * fp32:9.0f} us  packed {1e6 * ours:9.0f} us  torch {1e6 * torchs:9.0f} us  "
                line = f"{size:5} x {size} {text:9} {rows:5} rows {kernel:7} {times}"
                fast = (
                    verdict("times fp32", fp32 / ours, ONE_ROW[size])
                    if rows == 1 and text == "int4-g32"
                    else f"times fp32 {fp32 / ours:.2f}"
                )
                slow = verdict("; times bf16", bf16 / ours16, NEVER_SLOWER)
                print(line + fast + slow + verdict("; error x 1e6", 1e6 * error, 1e6 * TOLERANCE, least=False), flush=True)


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
        small: nn.Module = load(path, packed=True)
        found = tokens_per_second(
            reference.module, small, vocabulary=reference.config["vocab_size"] if reference.config else 1, rounds=rounds
        )
        assert found is not None
        size = plan.size.effective_bits
        print(
            f"stories15m at {size:.2f} bits: {found.reference:.1f} tokens/s in fp32, {found.packed:.1f} packed; "
            + verdict("gain", found.gain, DECODING)
        )
        loading = loading_of("packed", path, reference=source, factory=None, trust=False)
        whole = path.stat().st_size
    if loading.own_bytes is not None and loading.peak_bytes is not None:
        print(
            f"stories15m loaded: {whole:,} bytes of file, {loading.own_bytes:,} of memory, {loading.peak_bytes:,} at the peak; "
            + verdict("memory over file", loading.own_bytes / whole, MEMORY, least=False)
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
