"""Exact allocation under several limits at once: the multidimensional multiple-choice knapsack, as an integer program for HiGHS. No torch.

One binary variable per option, one option per group, one row per limit. HiGHS (Huangfu and Hall 2018) proves optimality by
branch and cut; if time runs out first, its bound gives the gap. Costs and errors are scaled to suit its tolerances, and the answer is
checked against the true limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from mpq.search.solvers.knapsack import Solution
from mpq.search.solvers.silenced import silenced

SECONDS = 10.0
_GAP = 1e-6  # relative gap below which a plan counts as optimal
_TIGHTER = (0.0, 1e-9, 1e-7, 1e-5)  # shares subtracted from the limits until rounding in the solver no longer violates them

Rows = Sequence[Sequence[float]]


def solve_several(costs: Sequence[Rows], errors: Rows, limits: Sequence[float], *, seconds: float = SECONDS) -> Solution | None:
    """The choice with the smallest total error within every limit; None if there is none.

    Args:
        costs: for each limit, the cost of each option of each group; not negative.
        errors: error of each option of each group, finite.
        limits: limit for the total of each kind of cost.
        seconds: seconds after which the best choice found is returned with its gap.
    """
    counts = [len(group) for group in errors]
    starts = [0, *accumulate(counts)][:-1]
    error = np.concatenate([np.asarray(group, float) for group in errors])
    amounts = [np.concatenate([np.asarray(group, float) for group in rows]) for rows in costs]
    scale = max(float(np.abs(error).max()), 1e-300)
    one_each = csr_array((np.ones(len(error)), (np.repeat(np.arange(len(counts)), counts), np.arange(len(error)))))
    for tighter in _TIGHTER:
        bounds = [limit * (1 - tighter) for limit in limits]
        rows = vstack([one_each, *(csr_array(amount[None] / max(limit, 1e-300)) for amount, limit in zip(amounts, bounds, strict=True))])
        with silenced():
            found = milp(
                error / scale,
                integrality=np.ones(len(error), dtype=np.int64),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(rows, [1.0] * len(counts) + [-np.inf] * len(limits), [1.0] * (len(counts) + len(limits))),
                options={"time_limit": seconds, "mip_rel_gap": _GAP},
            )
        if found.x is None:
            return None
        choice = tuple(int(np.argmax(found.x[start : start + count])) for start, count in zip(starts, counts, strict=True))
        taken = np.array(starts) + np.array(choice)
        if all(math.fsum(amount[taken]) <= limit for amount, limit in zip(amounts, limits, strict=True)):
            total = math.fsum(error[taken])
            bound = found.mip_dual_bound * scale if tighter == 0 and found.mip_dual_bound is not None else -math.inf
            proven = total if found.status == 0 and tighter == 0 else bound
            return Solution(choice, total, min(proven, total))
    return None
