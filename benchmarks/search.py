"""Search methods at equal bytes and equal numbers of measured plans, judged on held-out samples.

    python -m benchmarks.search [--models DIR] [--only chars digits stories260k resnet20 stories15m] [--budgets 3bits 3.5bits]
        [--trials 64] [--enumerate]

uniform   the best uniform plan of no more bytes
greedy    from the smallest plan, the step that saves most error per byte, until nothing fits
twolevel  the least sensitive layers at the smallest scheme, all others at the largest, as many as fit
tpe       one categorical parameter per layer, started from the exact plan; plans over the budget are told as infinitely bad
cold      the same, started from the smallest plan
nsga2     one parameter per layer, NSGA-II with the budget as its constraint, started from the exact plan
exact     the table solved to proven optimality
mpq       the whole search, with --trials measured plans

Each cell is the held-out error over that of `exact`. --enumerate instead measures every plan of small sub-problems (7 layers of chars,
three schemes, 2,187 plans) and tells how near the search comes to the true optimum with 5% of the measurements.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.table import Table

import mpq
from benchmarks.analyze import own_text
from mpq.budget import Budget
from mpq.demo import demo_files
from mpq.models.batches import Data
from mpq.models.fit import fit_data
from mpq.models.loaded import LoadedModel
from mpq.records.sensitivity import Errors
from mpq.schemes import Scheme
from mpq.search.hull import relax
from mpq.search.limits import layer_limit
from mpq.search.problem import Problem, build_groups
from mpq.search.uniform import uniform_plans

Choice = tuple[int, ...]
Measure = Callable[[Choice], float]


def cases(only: list[str], models: Path | None) -> Iterator[tuple[str, LoadedModel, Data, float]]:
    """Name, model, data, and the share of the data that is held out."""
    for name in ("chars", "digits"):
        if name in only:
            files = demo_files(name)
            model = mpq.load_model(files.model)
            yield name, model, fit_data(torch.cat([files.calibration, files.test]), model=model, source=name), 0.5
    for name, window in (("stories260k", 128), ("stories15m", 256)):
        if name in only:
            assert models is not None, f"{name} needs --models DIR"
            model = mpq.load_model(models / name)
            if name == "stories260k":
                yield name, model, own_text(model, 128), 0.5
            else:
                text = f"{models / 'text' / 'tinystories.jsonl'}?split=train_head"
                yield name, model, mpq.load_data(text, model=model, seq_len=window, num_samples=32), 0.5
    if "resnet20" in only:
        assert models is not None, "resnet20 needs --models DIR"
        model = mpq.load_model(models / "cifar10" / "resnet20.pt2")
        content = np.load(models / "cifar10" / "cifar10.npz")
        images = next(content[key] for key in content if "test" in key and content[key].ndim == 4)[:1024]
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        yield "resnet20", model, fit_data((torch.from_numpy(images).float() / 255 - mean) / deviation, model=model, source="images"), 0.5


def greedy(problem: Problem) -> Choice:
    cost = [np.array([o.cost for o in g.options], dtype=np.int64) for g in problem.groups]
    error = [np.array([o.error for o in g.options]) for g in problem.groups]
    kept = [[j for j in range(len(c)) if e[j] < min(e[:j], default=math.inf)] for c, e in zip(cost, error, strict=True)]
    found = relax([c[k] for c, k in zip(cost, kept, strict=True)], [e[k] for e, k in zip(error, kept, strict=True)], problem.limit)
    return tuple(k[j] for k, j in zip(kept, found.choice, strict=True))


def two_level(problem: Problem) -> Choice:
    choice = [len(group.options) - 1 for group in problem.groups]
    for g in sorted(range(len(choice)), key=lambda g: problem.groups[g].options[0].error):
        if problem.cost(choice) <= problem.limit:
            break
        choice[g] = 0
    return tuple(choice)


def nsga2(problem: Problem, measure: Measure, start: Choice, trials: int, seed: int) -> Choice:
    def over(trial: optuna.trial.FrozenTrial) -> list[float]:
        return [float(problem.cost([trial.params[str(g)] for g in range(len(problem.groups))]) - problem.limit)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=16, constraints_func=over)
    return optimised(sampler, problem, measure, start, trials)


def tpe(problem: Problem, measure: Measure, start: Choice, trials: int, seed: int) -> Choice:
    return optimised(optuna.samplers.TPESampler(seed=seed), problem, measure, start, trials)


def optimised(sampler: optuna.samplers.BaseSampler, problem: Problem, measure: Measure, start: Choice, trials: int) -> Choice:
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({str(g): index for g, index in enumerate(start)})
    best, least, measured = start, math.inf, 0
    for _ in range(20 * trials):
        trial = study.ask()
        choice = tuple(trial.suggest_int(str(g), 0, len(group.options) - 1) for g, group in enumerate(problem.groups))
        error = math.inf
        if problem.cost(choice) <= problem.limit:
            error, measured = measure(choice), measured + 1
        study.tell(trial, error if math.isfinite(error) else 1e9)
        if error < least:
            best, least = choice, error
        if measured >= trials:
            break
    return best


def compare(options: argparse.Namespace, out: Table) -> None:
    for name, model, data, held_out in cases(options.only, options.models):
        for candidates in options.candidates:
            table = mpq.analyze(model, data, candidates=(candidates,), held_out=held_out, method="measure", quantizer=options.quantizer)
            measurer = mpq.PlanMeasurer(model, data, table)
            for text in options.budgets:
                try:
                    row = one_budget(table, measurer, Budget(text), options)
                except mpq.MpqError as error:
                    row = [str(error)[:60]]
                out.add_row(name, candidates, text, *row)
                print(name, candidates, text, *row, flush=True)


def one_budget(table: mpq.Sensitivity, measurer: mpq.PlanMeasurer, budget: Budget, options: argparse.Namespace) -> list[str]:
    problem = Problem(build_groups(table), layer_limit(table, budget)[0])
    solution = problem.solve()
    if solution is None:
        raise mpq.MpqError("not feasible")
    held = memory(lambda choice: float(measurer.held_out(problem.schemes(choice)).mean()))
    seen = memory(lambda choice: float(measurer.calibration(problem.schemes(choice)).mean()))
    base = held(solution.choice)
    uniforms = [u.choice for u in uniform_plans(problem, table, {})]
    found = mpq.search(table, budget, measurer=measurer, trials=options.trials, seed=options.seed)
    smallest = tuple(min(range(len(g.options)), key=lambda j, g=g: g.options[j].cost) for g in problem.groups)  # type: ignore[misc]
    mine = index_of(problem, found.plan.layers)
    columns: dict[str, Choice | None] = {
        "uniform": min(uniforms, key=held, default=None),
        "greedy": greedy(problem),
        "twolevel": two_level(problem),
        "tpe": tpe(problem, seen, solution.choice, options.trials, options.seed),
        "cold": tpe(problem, seen, smallest, options.trials, options.seed),
        "nsga2": nsga2(problem, seen, solution.choice, options.trials, options.seed),
        "mpq": mine,
    }
    ratios = ["-" if choice is None else f"{held(choice) / base:.3f}" for choice in columns.values()]
    difference = measurer.held_out(problem.schemes(mine)) - measurer.held_out(problem.schemes(solution.choice))
    stderr = float(difference.std(ddof=1) / math.sqrt(len(difference))) / base
    return [f"{base:.4g}", *ratios, f"{stderr:.3f}", f"{8 * problem.cost(mine) / sum(layer.weights for layer in table.layers):.4f}"]


def memory(function: Callable[[Choice], float]) -> Callable[[Choice], float]:
    known: dict[Choice, float] = {}

    def remembered(choice: Choice) -> float:
        if choice not in known:
            known[choice] = function(choice)
        return known[choice]

    return remembered


def index_of(problem: Problem, schemes: Mapping[str, Scheme]) -> Choice:
    return tuple(
        next(i for i, option in enumerate(group.options) if all(schemes[name] == scheme for name, scheme in option.schemes.items()))
        for group in problem.groups
    )


class Counting(mpq.PlanMeasurer):
    """Counts the calibration samples that plans were run on."""

    seen = 0

    def calibration_parts(self, schemes: Mapping[str, Scheme]) -> Iterator[Errors]:
        for part in super().calibration_parts(schemes):
            self.seen += len(part)
            yield part


def enumerated(options: argparse.Namespace) -> None:
    files = demo_files("chars")
    model = mpq.load_model(files.model)
    data = fit_data(files.calibration[:22], model=model, source="chars")
    parts = ("query", "key", "value", "output")
    near = total = 0
    for case in range(10):
        attention = sorted({f"layers.{(case + n) % 3}.attention.{parts[(case + n) % 4]}" for n in range(7)})
        targets = (*attention, "embedding", "head")[:7]
        table = mpq.analyze(model, data, candidates=("int2", "int3", "int4"), targets=targets, method="measure", quantizer="rtn")
        measurer = mpq.PlanMeasurer(model, data, table)
        groups = build_groups(table)
        bare = Problem(groups, 0)
        problem = Problem(groups, int(bare.smallest + (0.3 + 0.04 * case) * (bare.largest - bare.smallest)))
        seen = memory(lambda choice, problem=problem, measurer=measurer: float(measurer.calibration(problem.schemes(choice)).mean()))  # type: ignore[misc]
        every: Sequence[Choice] = list(itertools.product(*(range(len(g.options)) for g in groups)))
        optimum = min(seen(choice) for choice in every if problem.cost(choice) <= problem.limit)
        allowed = len(every) // 20
        counting = Counting(model, data, table)
        found = mpq.search(table, f"{problem.limit}B", measurer=counting, trials=allowed - 4, seed=case)
        whole = counting.seen / int(table.header.data["samples"]["calibration"])
        reached = min(float(f.calibration.mean()) for f in found.finalists if not f.uniform)
        near, total = near + (reached <= 1.01 * optimum), total + 1
        print(
            f"case {case}: {len(groups)} layers, {len(every)} plans, {found.measurements} tried in the samples of {whole:.1f} "
            f"({whole / len(every):.2%}), {reached / optimum:.4f} of the optimum",
            flush=True,
        )
    print(f"within 1% of the true optimum in {near} of {total} cases, with about 5% of the samples that measuring every plan takes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only", nargs="+", default=["chars", "digits"])
    parser.add_argument("--budgets", nargs="+", default=["3bits", "3.5bits", "4.25bits", "5bits"])
    parser.add_argument("--candidates", nargs="+", default=["2..8,16"])
    parser.add_argument("--quantizer", default="mse")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--enumerate", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.enumerate:
        enumerated(options)
        return
    out = Table(
        "model",
        "candidates",
        "budget",
        "exact",
        "uniform",
        "greedy",
        "twolevel",
        "tpe",
        "cold",
        "nsga2",
        "mpq",
        "± of mpq",
        "bpw of mpq",
        box=None,
    )
    compare(options, out)
    Console(width=140).print(out)


if __name__ == "__main__":
    main()
