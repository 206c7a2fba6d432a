"""Quality limits: a maximum held-out error, or a maximum drop of the user's own metric. No torch.

The loss that guides the search for the smallest plan is slightly optimistic for the plan that is found. So a limit may have a judge: the
same loss on other samples. If a metric returns several values, a random half guides the search and the other half judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.activations import Groups
from mpq.records.sensitivity import Errors
from mpq.search.final_decision import rounded

if TYPE_CHECKING:
    from mpq.search.run import SearchResult

_FEWEST = 8  # fewest values that are split
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
Loss = Callable[["SearchResult"], float]
Score = Callable[[Mapping[str, Scheme], Groups], Errors]
"""The user's own metric of the model under some schemes and with some tensors between layers rounded, one value or one per sample; without
schemes, of the unquantized model."""


@dataclass(frozen=True)
class QualityLimit:
    """An upper limit on a loss.

    Args:
        name: name of the loss, for people.
        most: the largest loss allowed.
        loss: computes the loss of a result.
        judge: the same loss on samples that `loss` does not see, which decides; None if there are none.
    """

    name: str
    most: float
    loss: Loss
    judge: Loss | None = None

    def decided(self, result: SearchResult) -> float:
        """The loss of a result on the deciding samples."""
        return (self.judge or self.loss)(result)

    def row(self, value: float) -> dict[str, Any]:
        """The limit and the plan's value, for the plan's evidence."""
        return {"name": self.name, "value": rounded(value), "most": self.most}


def held_out_limit(most: float) -> QualityLimit:
    """A limit on the held-out error of a plan, in the metric of its analysis."""
    return QualityLimit("held-out error", most, _held_out)


def _held_out(result: SearchResult) -> float:
    value = result.plan.evidence["measured"]["held_out"]
    return math.inf if value is None else float(value)


@dataclass(frozen=True)
class Drop:
    """How much of a metric a plan may lose: an absolute amount, or a percentage of the unquantized model's value."""

    amount: float
    is_percent: bool

    def of(self, reference: float) -> float:
        """The allowed loss if the metric of the model is `reference`."""
        return self.amount * abs(reference) / 100 if self.is_percent else self.amount


def read_drop(text: str) -> Drop:
    """The drop that "0.5%" or "0.005" means.

    Raises:
        UsageError: if it is not a number of 0 or more.
    """
    number, share = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        amount = float(number)
    except ValueError as error:
        raise UsageError(f"--max-drop '{text}' is not a number or a share: write for example 0.005 or 0.5%") from error
    if not amount >= 0:
        raise UsageError(f"--max-drop '{text}' is negative: write for example 0.005 or 0.5%")
    return Drop(amount, share)


def drop_limit(score: Score, drop: Drop, *, name: str, seed: int) -> tuple[QualityLimit, str]:
    """A limit on the drop of a metric, and its description for people.

    Args:
        score: the metric, larger is better.
        drop: allowed loss.
        name: name of the metric, for people.
        seed: seed of the split into guiding and deciding values.
    """
    reference = score({}, {})
    mean = float(reference.mean())
    most = drop.of(mean)
    steering, deciding = halves(len(reference), seed=seed)
    known: dict[str, Errors] = {}  # by assignment: one run of the metric serves both halves

    def lost(result: SearchResult, part: Integers) -> float:
        scores = known.get(result.plan.assignment)
        if scores is None:
            scores = known[result.plan.assignment] = score(result.plan.layers, result.plan.activations)
        if len(scores) != len(reference):
            raise UsageError(
                f"the metric returned {len(scores)} values, but {len(reference)} before: it must return the same number each time"
            )
        return float((reference - scores)[part].mean())

    wanted = f"{name} of at least {mean - most:.6g} (the model has {mean:.6g})"
    if deciding is None:
        told = (
            f"{wanted}; it returns one number, which guides the search and decides: return one value per sample to let half of them decide"
        )
        return QualityLimit(f"drop of {name}", most, lambda result: lost(result, steering)), told
    told = f"{wanted}; half of its {len(reference)} values guide the search, the others decide"
    judged = deciding
    return QualityLimit(f"drop of {name}", most, lambda result: lost(result, steering), lambda result: lost(result, judged)), told


def halves(count: int, *, seed: int) -> tuple[Integers, Integers | None]:
    """Positions of the guiding and of the deciding values, a random half each; with few values, all guide and none decide.

    Args:
        count: number of values.
        seed: seed of the split.
    """
    if count < _FEWEST:
        return np.arange(count), None
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]
