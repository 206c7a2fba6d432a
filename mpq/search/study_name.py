"""The name of a study: everything that its trials depend on, so that no search reuses trials of a different one. No torch.

The name has the budget and a digest of: the header of the analysis (model, data, how they were read and split, metric, quantizer, method,
versions), the bytes of the limit, the other limits with their costs, the options of every group (given by pins, ties, minimum bits and
candidates), the seed, and the plan that the search starts from. The number of trials and the timeout are not part of it, so a longer search
continues a shorter one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mpq.budget import Budget
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Problem


def study_name(table: Sensitivity, problem: Problem, budget: Budget, *, seed: int, start: Sequence[int] | None) -> str:
    """A name for people, with a digest.

    Args:
        table: the analysis.
        problem: groups, costs and limits.
        budget: as the user wrote it.
        seed: of the search.
        start: the user's choice that the search also starts from; None without one.
    """
    facts: list[Any] = [
        table.header.to_dict(),
        problem.limit,
        [str(limit) for limit in problem.beside],
        [[str(option.schemes) for option in group.options] for group in problem.groups],
        seed,
        *([list(start)] if start is not None else []),  # without one, the name is the same as in earlier versions
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{budget.limit} of {budget.scope}, {digest[:12]}"
