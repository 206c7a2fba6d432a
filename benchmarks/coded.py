"""What coded formats buy at equal bytes of the file: mixed plans from each candidate set, on data that nothing was tuned on.

    python -m benchmarks.coded --models DIR [--only stories9m] [--budgets 4.5] [--work FOLDER]
    python -m benchmarks.coded --models DIR --uniform int4-g32 ec4.5 [--quantizer mse] [--only stories9m]
    python -m benchmarks.coded --models DIR --coders

DIR is as for `benchmarks.quantizers`, whose measurements these are, with budgets on the whole file. Plans are quantized by `descent`,
and one layer after another where held-out samples say so. Then the bars: ratios of the error on test data, geometric means over the
models that were measured. --uniform measures uniform plans instead, without recovery, which takes seconds. --coders compares coders on
the codes of stories9m instead; it needs `pip install constriction`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quantizer_cases import Judge, case
from benchmarks.quantizers import DEFAULT, Row, measured
from mpq.calibration.input_moments import statistics_for
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.tensors.coding import Coded, decode, encoded
from mpq.tensors.quantizers.coded import smallest_steps
from mpq.tensors.quantizers.registry import quantizer_named

SETS = ("coded,16", "8,16,fine", "2..8,16", "4,8,16")
BUDGETS = ("3", "3.5", "4", "4.5", "5", "6")
MODELS = ("resnet20", "stories260k", "stories9m")
BARS = (("4,8,16", "4.5", 0.42), ("4,8,16", "5", 0.30), ("4,8,16", "6", 0.18), *(("8,16,fine", bits, 0.60) for bits in ("4.5", "5", "6")))
T = TypeVar("T")
Rows = Mapping[tuple[str, ...], Row]


def main() -> None:
    """Measure what is missing, and print rows and bars; or compare coders."""
    options = _options()
    if options.coders:
        compare_coders(options.models)
        return
    if options.uniform:
        print_uniform(options)
        return
    rows = measured(options)
    for line in bars(rows, options.only):
        print(line)


def bars(rows: Rows, models: list[str]) -> list[str]:
    """The ratios that must hold, each with its value and the models that it is over."""
    lines = []
    for other, bits, limit in BARS:
        found = {model: ratio for model in models if (ratio := _ratio(rows, model, other, bits)) is not None}
        if found:
            value = math.exp(sum(map(math.log, found.values())) / len(found))
            single = ", ".join(f"{model} {ratio:.3g}" for model, ratio in found.items())
            verdict = "pass" if value <= limit else "FAIL"
            lines.append(f"{verdict}  coded over {other} at {bits} bits: {value:.3g} (at most {limit:g}): {single}")
    return lines


def _ratio(rows: Rows, model: str, other: str, bits: str) -> float | None:
    ours, theirs = (rows.get((model, DEFAULT, candidates, bits), {}).get("sequential", math.nan) for candidates in (SETS[0], other))
    return None if math.isnan(ours) or math.isnan(theirs) else ours / theirs


def print_uniform(options: argparse.Namespace) -> None:
    """The error on test data of every layer under one scheme, and the bits per weight of all layers."""
    for name in options.only:
        setting = case(name, options.models, encoder=options.encoder, samples=options.samples, tests=options.tests)
        judge, module = Judge(setting), setting.model.module
        first = setting.calibration.split(0.25, 0)[0]
        layers = discover(module, first.batches[:1]).layers
        for quantizer in options.quantizer:
            chosen = quantizer_named(quantizer)
            variants = Variants(module, layers, chosen, statistics=statistics_for(chosen, module, layers, first))
            for text in options.uniform:
                scheme = parse_scheme(text)
                began = time.process_time()
                weights = {layer.name: variants.quantized(layer.name, scheme) for layer in layers}
                seconds = time.process_time() - began
                error, quality = judge(as_parameters(weights, layers))
                bits = sum(scheme.stored_bits(layer.matrix) for layer in layers) / sum(layer.weights for layer in layers)
                figures = f"{bits:7.4f} bits  error {error:.4g}  {setting.quality} {quality:.4f}  {seconds:.1f} s"
                print(f"{name:11} {quantizer:8} {text:10} {figures}", flush=True)


def compare_coders(folder: Path) -> None:
    """Bits over the entropy, and millions of codes per second of one core, for codes of three layers at four rates."""
    from safetensors.torch import load_file

    state = load_file(folder / "stories9m" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight"):
        for rate in (2, 3, 4, 5):
            weight = smallest_steps(state[name].float(), parse_scheme(f"ec{rate}"))
            codes = weight.codes.numpy()
            found = {
                "zstandard fast": _zstandard(weight, strong=False),
                "zstandard strong": _zstandard(weight, strong=True),
                "constriction ANS": _ans(codes),
            }
            for coder, (bits, written, read) in found.items():
                over = bits - _entropy(codes)
                print(f"{name:42} ec{rate} {coder:16} entropy {over:+.3f} bits, writes {written:5.0f} M/s, reads {read:5.0f} M/s")


def _entropy(codes: NDArray[np.int8]) -> float:
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())


def _zstandard(weight: Coded, *, strong: bool) -> tuple[float, float, float]:
    """The best number of classes of rows."""
    best = min((1, 2, 4, 8), key=lambda classes: len(encoded(weight, classes=classes, strong=strong)))
    stored, written = _timed(lambda: encoded(weight, classes=best, strong=strong))
    rows, columns = weight.codes.shape
    buffer = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    _, read = _timed(lambda: decode(buffer, (rows, columns)))
    count = weight.codes.numel() / 1e6
    return 8e-6 * len(stored) / count, count / written, count / read


def _ans(codes: NDArray[np.int8]) -> tuple[float, float, float]:
    """One table for the whole layer; it is not counted."""
    import constriction

    symbols = codes.astype(np.int32).ravel() + 128
    share = np.bincount(symbols, minlength=256) / symbols.size + 1e-9
    model = constriction.stream.model.Categorical(share / share.sum(), perfect=False)

    def write() -> NDArray[np.uint32]:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols, model)
        return np.asarray(coder.get_compressed())

    stored, written = _timed(write)
    _, read = _timed(lambda: constriction.stream.stack.AnsCoder(stored).decode(model, symbols.size))
    return 32 * len(stored) / codes.size, codes.size / written / 1e6, codes.size / read / 1e6


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and the least processor time of three."""
    best = math.inf
    for _ in range(3):
        began = time.process_time()
        found = call()
        best = min(best, time.process_time() - began)
    return found, max(best, 1e-9)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=(*MODELS, "minilm", "stories15m"))
    parser.add_argument("--candidates", nargs="*", default=list(SETS))
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), help="bits per weight over the whole file")
    parser.add_argument("--samples", type=int, help="calibration samples")
    parser.add_argument("--tests", type=int, help="test samples")
    parser.add_argument("--work", type=Path, default=Path("coded.work"), help="keeps analyses and rows between runs")
    parser.add_argument("--coders", action="store_true", help="compare coders only")
    parser.add_argument("--uniform", nargs="*", default=[], help="uniform plans to measure instead")
    parser.add_argument("--quantizer", nargs="+", default=["mse"], help="of the uniform plans")
    parser.set_defaults(scope="file", quantizers=[DEFAULT], method="fisher", trials=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
