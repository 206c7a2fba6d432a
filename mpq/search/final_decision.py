"""Finals: the decision among finalists, uniform plans included, on samples that no stage has seen. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.evidence.paired_test import compare
from mpq.records.sensitivity import Errors, standard_error


@dataclass(frozen=True)
class Finalist:
    """A plan that has come this far.

    Args:
        name: of the stage that found it, or of its scheme when it is uniform.
        choice: one option per group.
        uniform: whether every layer takes the same scheme.
        effective_bits: of its layers.
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

    def row(self) -> dict[str, Any]:
        """The finalist's line in a plan: plain, rounded figures."""
        return {
            "name": self.name,
            "effective_bits": round(self.effective_bits, 4),
            "predicted": rounded(self.predicted),
            "calibration": rounded(_mean(self.calibration)),
            "calibration_stderr": rounded(standard_error(self.calibration)),
            "held_out": rounded(_mean(self.held_out)),
            "held_out_stderr": rounded(standard_error(self.held_out)),
        }


def decide(finalists: Sequence[Finalist]) -> tuple[Finalist, str]:
    """The plan to return, and why.

    Mixed plans stand in the order in which the stages found them. A later one replaces an earlier one if it is better on the held-out
    samples, and at the 30% level on calibration and held-out samples together: neither is the safer choice, so that proof is not asked
    for. The best mixed plan replaces the best uniform one only if it is better on the held-out samples alone beyond noise.
    """
    mixed = [finalist for finalist in finalists if not finalist.uniform]
    uniform = min((finalist for finalist in finalists if finalist.uniform), key=lambda f: _mean(f.held_out), default=None)
    best = mixed[0]
    for challenger in mixed[1:]:
        together = compare(_joined(challenger), _joined(best))
        if compare(challenger.held_out, best.held_out).difference < 0 and together.promising:
            best = challenger
    if uniform is None:
        return best, f"{best.name}: no uniform plan fits the budget"
    against = compare(best.held_out, uniform.held_out)
    if uniform.choice == best.choice:
        return best, f"{best.name}: the same plan as uniform {uniform.name}"
    ratio = _mean(best.held_out) / _mean(uniform.held_out) if _mean(uniform.held_out) else math.inf
    if against.better:
        return best, f"{best.name}: {ratio:.3g} of the held-out error of the best uniform plan ({uniform.name}), beyond noise"
    relation = "no better" if against.difference < 0 else "worse"
    text = f"the best mixed plan ({best.name}) is {relation} on held-out samples within noise ({ratio:.3g} of its error)"
    return uniform, f"uniform {uniform.name}: {text}"


def _joined(finalist: Finalist) -> Errors:
    return np.concatenate([finalist.calibration, finalist.held_out])


def rounded(value: float, digits: int = 4) -> float | None:
    """`value` to `digits` significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _mean(errors: Errors) -> float:
    value = float(errors.mean())
    return value if math.isfinite(value) else math.inf
