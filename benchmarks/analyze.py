"""Methods of analysis: their cost, and how well their tables agree with the naive measured one.

    python -m benchmarks.analyze --models DIR [--only stories260k resnet20 stories15m deep] [--samples 128] [--candidates 4,8,16]

naive    one whole forward pass per batch, layer and scheme
measure  the same figures with replay, and fewer samples where the error is known to be negligible
fisher   one forward and two backward passes per sample
weight   no data

"deep" is an untrained Llama-shaped model of 30 blocks (210 linear layers and a head): its figures say nothing, its times do.
Ratios are within one run. Whole-plan figures are those of the analysis's own self-check, on 12 plans. "solved" are the plans that each
table's exact solution gives at --budgets: their held-out error over that of naive's plans, geometric mean, with its standard error over
samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

import mpq
from mpq.data.dataset import Data
from mpq.evidence.prediction import quality
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.sensitivity import Sensitivity

METHODS = ("naive", "measure", "fisher", "weight")


def cases(models: Path, only: list[str], samples: int, seq_len: int = 256) -> Iterator[tuple[str, LoadedModel, Data]]:
    """Name, model and data; a quarter of the data is held out by the analysis, so that `samples` remain."""
    drawn = math.ceil(samples * 4 / 3)
    if "stories260k" in only:
        model = mpq.load_model(models / "stories260k")
        yield "stories260k", model, own_text(model, drawn)
    if "resnet20" in only:
        model = mpq.load_model(models / "cifar10" / "resnet20.pt2")
        yield "resnet20", model, mpq.load_data(str(models / "cifar10" / "calibration.pt"), model=model, num_samples=drawn)
    if "stories15m" in only:
        model = mpq.load_model(models / "stories15m")
        text = f"{models / 'text' / 'tinystories.jsonl'}?split=train_head"
        yield "stories15m", model, mpq.load_data(text, model=model, seq_len=seq_len, num_samples=drawn)
    if "deep" in only:
        yield "deep", *deep()


def own_text(model: LoadedModel, count: int) -> Data:
    """Windows of 128 tokens that the model itself wrote: it has no tokenizer."""
    torch.manual_seed(0)
    start = torch.ones(count, 1, dtype=torch.int64)
    with torch.no_grad():
        generate: Any = model.module.generate
        tokens = generate(start, attention_mask=torch.ones_like(start), pad_token_id=0, do_sample=True, max_new_tokens=127)
    return _fitted(tokens, model)


def _fitted(tokens: torch.Tensor, model: LoadedModel) -> Data:
    from mpq.models.inputs.fit_to_model import fit_data

    return fit_data(tokens, model=model, source="own text", batch_size=8)


def deep() -> tuple[LoadedModel, Data]:
    """An untrained Llama-shaped model of 30 blocks, and 16 windows of 128 random tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=352, num_hidden_layers=30, num_attention_heads=4, max_position_embeddings=128
    )
    model = from_module(LlamaForCausalLM(shape).eval())
    return model, _fitted(torch.randint(0, 256, (16, 128), generator=torch.Generator().manual_seed(0)), model)


def analyzed(method: str, model: LoadedModel, data: Data, candidates: str) -> tuple[Sensitivity, float]:
    """The table of one method, and its seconds without the self-check."""
    choices: dict[str, Any] = {"candidates": (candidates,), "quantizer": "rtn"}
    if method != "naive":
        table = mpq.analyze(model, data, method=method, **choices)
    else:
        with (
            mock.patch("mpq.models.running.replay.run.tape_for", return_value=None),
            mock.patch("mpq.analyze.methods.measure.NEGLIGIBLE", 0.0),
        ):
            table = mpq.analyze(model, data, method="measure", **choices)
    assert table.finish is not None
    return table, float(table.finish["cost"]["method_seconds"])


def solved(tables: dict[str, Sensitivity], model: LoadedModel, data: Data, budgets: list[str]) -> dict[str, str]:
    """Held-out error of each method's plans over that of naive's."""
    found: dict[str, list[float]] = {method: [] for method in tables}
    noise: dict[str, list[float]] = {method: [] for method in tables}
    for budget in budgets:
        errors: dict[str, Any] = {}
        try:
            for method, table in tables.items():
                plan = mpq.search(table, budget).plan
                errors[method] = mpq.PlanMeasurer(model, data, table).held_out(plan.layers)
        except mpq.MpqError:
            continue
        base = float(errors["naive"].mean())
        for method, each in errors.items():
            found[method].append(math.log(float(each.mean()) / base))
            noise[method].append(float((each - errors["naive"]).std(ddof=1)) / math.sqrt(len(each)) / base)
    return {
        method: f"{math.exp(sum(ratios) / len(ratios)):.3f} ±{math.hypot(*noise[method]) / len(ratios):.3f}" if ratios else "-"
        for method, ratios in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["stories260k", "resnet20", "deep"])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--candidates", default="4,8,16")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--budgets", nargs="*", default=["3bits", "3.5bits", "4bits", "4.5bits", "5bits", "6bits"])
    options = parser.parse_args()
    columns = (
        "model",
        "method",
        "seconds",
        "of naive",
        "forward eq.",
        "of naive",
        "rank",
        "log error",
        "plans: rank",
        "bias",
        "interactions",
        "solved",
    )
    found = Table(*columns, box=None)
    for name, model, data in cases(options.models, options.only, options.samples, options.seq_len):
        tables = {method: analyzed(method, model, data, options.candidates) for method in METHODS}
        naive, naive_seconds = tables["naive"]
        plans = solved({method: table for method, (table, _) in tables.items()}, model, data, options.budgets)
        pairs = [pair for pair in naive.errors if naive.mean(*pair) > 1e-6]
        for method, (table, seconds) in tables.items():
            cost, check = table.finish["cost"], table.finish["check"]  # type: ignore[index]
            samples = table.header.data["samples"]["calibration"]
            batches = len(data.split(0.25, 0)[0].batches)
            passes = forward_equivalents(cost, samples, batches)
            agreement = quality([table.mean(*pair) for pair in pairs], [naive.mean(*pair) for pair in pairs])
            whole, together = check.get("additive", {}), check.get("interactions", {})
            found.add_row(
                name,
                method,
                f"{seconds:.1f}",
                f"{seconds / naive_seconds:.3f}",
                f"{passes:.1f}",
                f"{passes / forward_equivalents(naive.finish['cost'], samples, batches):.3f}",  # type: ignore[index]
                f"{agreement.rank:.4f}",
                f"{math.hypot(agreement.bias, agreement.spread):.3f}",
                str(whole.get("rank", "")),
                str(whole.get("bias", "")),
                f"{together.get('rank', '')} {together.get('bias', '')}",
                plans[method],
            )
        print(f"{name}: {len(naive.errors)} pairs, {data.description}", flush=True)
    Console(width=170).print(found)


def forward_equivalents(cost: dict[str, float], samples: int, batches: int) -> float:
    """Passes over all calibration samples; a backward pass counts as two forward passes."""
    if "forward_passes" in cost:
        return (cost["forward_passes"] + 2 * cost["backward_passes"]) / samples
    return cost.get("forward_equivalents", 0.0) / batches


if __name__ == "__main__":
    main()
