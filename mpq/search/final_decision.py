"""The decision among the finalists, including uniform plans: the smallest expected error by all evidence together. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.evidence.paired_test import compare
from mpq.evidence.posterior import Evidence, posterior, samples_to_tell
from mpq.records.finalist_names import LEAST_MEASURED
from mpq.records.sensitivity import Errors, standard_error
from mpq.search.stages.registry import stage_kinds
from mpq.shown import bits_text, figure

TUNED = frozenset({LEAST_MEASURED, *(kind.title or kind.name for kind in stage_kinds())})
"""Finalists that were chosen for their error on the calibration samples."""


_ALIKE = 1e-9  # relative


@dataclass(frozen=True, repr=False)
class Finalist:
    """A plan that takes part in the final decision.

    Args:
        name: name of the stage that found it, or of its scheme if it is uniform.
        choice: one option per group.
        uniform: whether every layer uses the same scheme.
        effective_bits: bits per weight of its layers.
        predicted: sum of its single-layer errors.
        calibration: error on each calibration sample.
        held_out: error on each held-out sample.
    """

    name: str
    choice: tuple[int, ...]
    uniform: bool
    effective_bits: float
    predicted: float
    calibration: Errors
    held_out: Errors

    def __repr__(self) -> str:
        row = self.row()
        held_out = figure(row["held_out"], row["held_out_stderr"])
        return f"<Finalist {self.name}: {bits_text(self.effective_bits)} bits per weight, {held_out} on held-out samples>"

    def row(self) -> dict[str, Any]:
        """The finalist's line in a plan: rounded values."""
        return {
            "name": self.name,
            "effective_bits": round(self.effective_bits, 4),
            "predicted": rounded(self.predicted),
            "calibration": rounded(_mean(self.calibration)),
            "calibration_stderr": rounded(standard_error(self.calibration)),
            "held_out": rounded(_mean(self.held_out)),
            "held_out_stderr": rounded(standard_error(self.held_out)),
        }


@dataclass(frozen=True)
class Decision:
    """The plan to return.

    Args:
        best: the finalist.
        reason: why, for people.
        expected: the expected error of each finalist, in their order; infinite if outputs are not finite.
        probability: probability that the plan's error is below that of the best uniform plan (or, if it is uniform, the best mixed one).
    """

    best: Finalist
    reason: str
    expected: tuple[float, ...]
    probability: float | None


def decide(finalists: Sequence[Finalist], *, spread: float | None = None) -> Decision:
    """The plan with the smallest expected error by all evidence together (`evidence/posterior.py`), and the reason.

    Args:
        finalists: in the order in which the stages found them, starting with the table optimum.
        spread: of the table's predictions, from the self-check of the analysis.
    """
    sound = [finalist for finalist in finalists if np.isfinite(finalist.calibration).all() and np.isfinite(finalist.held_out).all()]
    if not sound:
        return Decision(finalists[0], f"{finalists[0].name}: no plan has finite outputs", (math.inf,) * len(finalists), None)
    found = posterior([Evidence(f.predicted, f.calibration, f.held_out, f.name in TUNED) for f in sound], spread=spread)
    expected = {id(finalist): float(value) for finalist, value in zip(sound, found.expected, strict=True)}
    least = min(expected.values()) * (1 + _ALIKE)
    best = next(finalist for finalist in sound if expected[id(finalist)] <= least)  # the first one among equals
    rivals = [finalist for finalist in sound if finalist.uniform != best.uniform]
    rival = min(rivals, key=lambda finalist: expected[id(finalist)], default=None)
    values = tuple(expected.get(id(finalist), math.inf) for finalist in finalists)
    if rival is None:
        only = "no uniform plan fits the budget" if not best.uniform else "no mixed plan fits the budget"
        return Decision(best, f"{_named(best)}: {only}", values, None)
    if rival.choice == best.choice:
        mixed, uniform = (rival, best) if best.uniform else (best, rival)
        return Decision(mixed, f"{mixed.name}: the same plan as uniform {uniform.name}", values, None)
    chance = found.probability(sound.index(best), sound.index(rival))
    ratio = expected[id(best)] / expected[id(rival)] if expected[id(rival)] else 1.0
    of = f"the best uniform plan ({rival.name})" if rival.uniform else f"the best mixed plan ({rival.name})"
    reason = f"{_named(best)}: expected error {ratio:.3g} times that of {of}, smaller with probability {_percent(chance)}"
    return Decision(best, reason + _doubt(best, rival), values, chance)


def _named(finalist: Finalist) -> str:
    return f"uniform {finalist.name}" if finalist.uniform else finalist.name


def _percent(chance: float) -> str:
    return "over 99.9%" if chance > 0.999 else f"{chance:.1%}" if chance > 0.99 else f"{chance:.0%}"


def _doubt(best: Finalist, rival: Finalist) -> str:
    """A remark if the held-out samples alone cannot tell the two plans apart."""
    count = len(best.held_out)
    needed = samples_to_tell(best.held_out, rival.held_out)
    if compare(best.held_out, rival.held_out).better:
        return ""
    if needed is None:
        return f"; the {count} held-out samples alone do not show this"
    return f"; the {count} held-out samples alone are too few to show this, about {needed:,} would be needed"


def rounded(value: float, digits: int = 4) -> float | None:
    """`value` to `digits` significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _mean(errors: Errors) -> float:
    value = float(errors.mean())
    return value if math.isfinite(value) else math.inf
