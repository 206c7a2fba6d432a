"""Which rule picks the better plan from few samples: `python -m benchmarks.decisions --models DIR`.

The errors of all layers and of the finalists are measured on a pool of samples. Then the pool is split again and again into calibration
samples, held-out samples and the rest; each rule decides by the first two, and what counts is its plan's error on the rest, over that of
the finalist that is best there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import mpq
from benchmarks.search_cases import Case, cases
from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.data.dataset import make_data
from mpq.evidence.paired_test import compare
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.search.final_decision import Finalist, decide
from mpq.search.run import problem_for
from mpq.search.stages.uniform import uniform_plans

BUDGETS = ("4.3bits", "4.5bits", "5bits")
SIZES = ("96+32", "48+16", "24+8")
Rule = Callable[[Sequence[Finalist], float | None], Finalist]


def paired(finalists: Sequence[Finalist], _: float | None) -> Finalist:
    """The uniform plan unless held-out samples prove the exact one better at the 5% level."""
    exact, uniform = always_exact(finalists, None), always_uniform(finalists, None)
    return exact if compare(exact.held_out, uniform.held_out).better else uniform


def always_exact(finalists: Sequence[Finalist], _: float | None) -> Finalist:
    """The plan that is optimal for the table."""
    return finalists[0]


def always_uniform(finalists: Sequence[Finalist], _: float | None) -> Finalist:
    """The uniform plan of the least held-out error."""
    uniform = [finalist for finalist in finalists if finalist.uniform]
    return min(uniform or finalists[:1], key=lambda finalist: float(finalist.held_out.mean()))


def least_held_out(finalists: Sequence[Finalist], _: float | None) -> Finalist:
    """The plan of the least held-out error."""
    return min(finalists, key=lambda finalist: float(finalist.held_out.mean()))


def all_evidence(finalists: Sequence[Finalist], spread: float | None) -> Finalist:
    """What a search does."""
    return decide(finalists, spread=spread).best


RULES: dict[str, Rule] = {
    "all evidence": all_evidence,
    "paired test": paired,
    "always exact": always_exact,
    "always uniform": always_uniform,
    "least held-out": least_held_out,
}


class Pool:
    """A model's table and plans, measured on all samples of a pool."""

    def __init__(self, case: Case, most: int) -> None:
        batches = [*case.data.batches, *case.test.batches]
        data = make_data(batches, source=case.name).first(most)
        self.table = mpq.analyze(case.model, data, candidates=("4", "8", "16"), quantizer="mse", method="measure", held_out=0.01)
        self.samples = max(len(errors) for errors in self.table.errors.values())
        self._measurer = mpq.PlanMeasurer(case.model, data, self.table)
        self._known: dict[tuple[str, ...], Errors] = {}
        check = (self.table.finish or {}).get("check", {}).get("additive", {})
        self.spread: float | None = check.get("spread")

    def finalists(self, budget: str, calibration: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[Finalist, Errors]]:
        """The exact and the uniform plans as a search on these samples finds them, with their errors on the whole pool."""
        # A pair whose error was negligible on the first quarter of the samples was measured no further: its errors are repeated.
        errors = {pair: np.resize(found, self.samples)[calibration] for pair, found in self.table.errors.items()}
        table = Sensitivity(self.table.header, errors, finish=self.table.finish)
        problem, solution = problem_for(table, Budget(budget), SearchSettings())
        plans = [("exact", solution.choice, False), *((each.name, each.choice, True) for each in uniform_plans(problem, table, {}))]
        for name, choice, uniform in plans:
            found = self._errors(problem.schemes(choice))
            yield Finalist(name, choice, uniform, 0.0, problem.error(choice), found[calibration], found), found

    def _errors(self, schemes: dict[str, mpq.Scheme]) -> Errors:
        key = tuple(map(str, schemes.values()))
        if key not in self._known:
            self._known[key] = self._measurer.calibration(schemes)[: self.samples]
        return self._known[key]


def judge(pool: Pool, sizes: tuple[int, int], splits: int) -> dict[str, list[float]]:
    """Each rule's error on the rest of the pool, over the best finalist's there, for every split and budget."""
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(pool.samples)
        calibration, held_out, rest = np.split(order, [sizes[0], sum(sizes)])
        for budget in BUDGETS:
            measured = [
                (replace(one, held_out=errors[held_out]), errors[rest].mean()) for one, errors in pool.finalists(budget, calibration)
            ]
            best = min(error for _, error in measured)
            real = {id(finalist): error for finalist, error in measured}
            for name, rule in RULES.items():
                found[name].append(float(real[id(rule([finalist for finalist, _ in measured], pool.spread))] / best))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only", nargs="+", default=["digits", "chars", "resnet20"])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="calibration + held-out samples of a split")
    parser.add_argument("--samples", type=int, default=512, help="of the pool, at most")
    options = parser.parse_args()
    print(
        f"error on the rest over the best finalist's: geometric mean, 95% quantile; {options.splits} splits, budgets {', '.join(BUDGETS)}"
    )
    for case in cases(options.only, options.models):
        pool = Pool(case, options.samples)
        for size in options.sizes:
            calibration, held_out = map(int, size.split("+"))
            if calibration + held_out > pool.samples // 2:
                continue
            found = judge(pool, (calibration, held_out), options.splits)
            cells = (f"{name} {np.exp(np.log(v).mean()):.3f} {np.quantile(v, 0.95):.2f}" for name, v in found.items())
            print(f"{case.name:10} {size:7} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
