"""What quantizing in sequence, corrections and tuning buy at the same bytes, on real models, judged on data that nothing was tuned on.

    python -m benchmarks.corrections --models DIR [--only stories15m] [--plans int4-g32 4.5bits] [--quantizers rtn descent] [--samples 64]

DIR is that of `benchmarks.quantizers`. A plan is a scheme for all layers, or a budget that is solved on a second-order table of 2..8,16.
Each row gives the error on the test data as quantized, and what quantizing one layer after another (in brackets, the seconds), then
corrections, and then tuning leave of it: as held-out samples decide, as `mpq apply` does, then, in brackets, the state of tuning that
the samples kept aside chose, whether it was taken or not. --no-sequential leaves out the first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.quantizer_cases import MODELS, Case, Judge, case
from mpq.analyze.run import analyze
from mpq.calibration.input_moments import statistics_for
from mpq.config import TUNE_WORK
from mpq.evidence.paired_test import compare
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer
from mpq.recovery.base import TERA, Limits, State, Task
from mpq.recovery.bias_correction import BiasCorrection
from mpq.recovery.run import hindrances, recover
from mpq.recovery.sequential import Sequential
from mpq.recovery.tuning import tune
from mpq.search.run import search
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named

HELD_OUT, SEED = 0.25, 0


def main() -> None:
    """One row per model, quantizer and plan."""
    options = _options()
    print(
        "model       quantizer plan       samples  seconds    error  quality sequential (s)  corrected  tuned   (chosen)  quality  passes"
        "  seconds"
    )
    for model in options.only:
        setting = case(model, options.models, encoder=options.encoder, samples=options.samples, tests=options.tests)
        judge = Judge(setting)
        for quantizer in options.quantizers:
            for plan in options.plans:
                head = f"{model:11} {quantizer:9} {plan:10} "
                print(head + _row(setting, judge, quantizer, plan, options), flush=True)


def _row(setting: Case, judge: Judge, quantizer: str, plan: str, options: argparse.Namespace) -> str:
    calibration, held_out = setting.calibration.split(HELD_OUT, SEED)
    module, layers = setting.model.module, discover(setting.model.module, calibration.batches[:1]).layers
    schemes = _schemes(setting, layers, quantizer, plan)
    began = time.perf_counter()
    chooser = quantizer_named(quantizer)
    variants = Variants(module, layers, chooser, statistics=statistics_for(chooser, module, layers, calibration), cache_bytes=0)
    weights = {layer.name: variants.quantized(layer.name, schemes[layer.name]) for layer in layers}
    quantizing = time.perf_counter() - began
    error, quality = judge(as_parameters(weights, layers))
    task = Task(variants, calibration, setting.metric, SEED, Limits(TERA * options.work, options.minutes))
    state, sequence, ratio = State(weights), "-", 1.0
    if options.sequential:
        recovered = recover(task, state, held_out, {}, steps=(Sequential(),))
        state = recovered.state
        ratio = judge(state.values(layers))[0] / error
        sequence = f"{ratio:.3f} ({recovered.decisions[0].seconds:.0f})"
    steps = (BiasCorrection(),)
    recovered = recover(task, state, held_out, hindrances(module, (calibration, held_out), steps=steps), steps=steps)
    state, after = recovered.state, judge(recovered.state.values(layers))[0] if recovered.kept else ratio * error
    began = time.perf_counter()
    found = tune(task, state)
    tuning = time.perf_counter() - began
    reference = Reference(module, held_out, setting.metric)
    base, chosen = state.values(layers), state.changed(found.weights, found.vectors).values(layers)
    taken = compare(reference.errors(chosen).numpy(), reference.errors(base).numpy()).better
    chosen_error, chosen_quality = judge(chosen)
    figures = f"{calibration.samples:7} {quantizing:8.1f} {error:8.4g} {quality:8.4f} {sequence:>14} {after / error:10.3f} "
    figures += f"{(chosen_error if taken else after) / error:6.3f} {f'({chosen_error / error:.3f})':>10} {chosen_quality:8.4f}"
    return f"{figures} {found.passes:7.1f} {tuning:8.1f}"


def _schemes(setting: Case, layers: tuple[Layer, ...], quantizer: str, plan: str) -> Mapping[str, Scheme]:
    if not plan.endswith("bits"):
        return dict.fromkeys((layer.name for layer in layers), parse_scheme(plan))
    table = analyze(setting.model, setting.calibration, candidates=("2..8,16",), quantizer=quantizer, method="fisher")
    return search(table, plan, trials=0).plan.layers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", default=[name for name in MODELS if name != "minilm"], choices=MODELS)
    parser.add_argument("--quantizers", nargs="+", default=["descent", "rtn"], choices=list(QUANTIZERS))
    parser.add_argument("--plans", nargs="+", default=["int4-g32", "int3-g32", "4.5bits"])
    parser.add_argument("--samples", type=int, help="calibration samples, before a quarter is held out")
    parser.add_argument("--tests", type=int, help="test samples")
    parser.add_argument("--sequential", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--work", type=float, default=TUNE_WORK, help="teraflops allowed for sequence and for tuning")
    parser.add_argument("--minutes", type=float, default=60.0, help="emergency stop of both")
    return parser.parse_args()


if __name__ == "__main__":
    main()
