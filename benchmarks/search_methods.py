"""Other ways to search, for `benchmarks/search.py`: each gives one option per group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import optuna

from mpq.search.problem import Problem
from mpq.search.solvers.relaxation import relax

Choice = tuple[int, ...]
Measure = Callable[[Choice], float]


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
