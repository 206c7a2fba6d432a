"""Knobs: a few parameters that re-weight the table before it is solved exactly. No torch.

The table is additive; the model is not. A knob re-weights the table by depth, by kind of layer, or by the size of the error. The exact
solver decodes each setting of the knobs into a plan within the budget, so a study over a few knobs sees only feasible, near-optimal plans.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import optuna

from mpq.records.finalist_names import PLAIN
from mpq.search.problem import Group, Problem
from mpq.search.stages.base import Proposal, Setting, Stage, Turn

MOST_KINDS = 8
_WIDTH = 1.5  # natural logarithms in both directions: a factor of 4.5


@dataclass(frozen=True)
class Knob:
    """One parameter of the study: its name for people, and its range around a neutral value."""

    name: str
    low: float
    high: float
    neutral: float


class Knobs:
    """The knobs of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._kinds = [kind_of(group) for group in problem.groups]
        counts = Counter(self._kinds)
        common = [kind for kind, count in counts.most_common(MOST_KINDS) if count < len(self._kinds)]
        self._named = sorted(common) if len(counts) > 1 else []
        positions = np.linspace(-1.0, 1.0, len(problem.groups)) if len(problem.groups) > 1 else np.zeros(1)
        self._depth = np.stack([positions, 2 * positions**2 - 1, 4 * positions**3 - 3 * positions], axis=1)
        sizes = np.log([sum(layer.weights for layer in group.layers) for group in problem.groups])
        self._size = sizes - sizes.mean()
        self.all = [
            Knob("power_of_error", 0.6, 1.6, 1.0),
            Knob("power_of_size", -0.5, 0.5, 0.0),
            *(Knob(f"depth_{name}", -_WIDTH, _WIDTH, 0.0) for name in ("slope", "curve", "wave")),
            *(Knob(f"weight_of_{kind}", -_WIDTH, _WIDTH, 0.0) for kind in self._named),
        ]

    @property
    def neutral(self) -> dict[str, float]:
        """The setting that leaves the table unchanged."""
        return {knob.name: knob.neutral for knob in self.all}

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        """A setting suggested by Optuna."""
        return {knob.name: trial.suggest_float(knob.name, knob.low, knob.high) for knob in self.all}

    def decode(self, setting: dict[str, float]) -> tuple[int, ...]:
        """The exactly solved plan of the re-weighted table: one option per group."""
        weights = np.exp(self._log_weights(setting))
        errors = [
            [float(weight) * _powered(option.error, setting["power_of_error"]) for option in group.options]
            for group, weight in zip(self.problem.groups, weights, strict=True)
        ]
        solution = self.problem.solve(errors)
        assert solution is not None, "the problem was checked to be feasible"
        return solution.choice

    def _log_weights(self, setting: dict[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        depth = self._depth @ np.array([setting[f"depth_{name}"] for name in ("slope", "curve", "wave")])
        kinds = np.array([setting.get(f"weight_of_{kind}", 0.0) for kind in self._kinds])
        weights: np.ndarray[tuple[int], np.dtype[np.float64]] = depth + setting["power_of_size"] * self._size + kinds
        return weights


def kind_of(group: Group) -> str:
    """The kind of layer of a group, for people: the last part of its name without numbers, or its operator."""
    lead = group.layers[0]
    parts = [part for part in re.split(r"[.]", lead.name) if not part.isdigit()]
    return parts[-1] if parts else lead.operator


def _powered(error: float, power: float) -> float:
    return math.copysign(abs(error) ** power, error) if error else 0.0


class KnobsStage(Stage):
    """Plans of re-weighted tables; Optuna's TPE chooses the weights."""

    name = "knobs"
    title = PLAIN[name]
    place = 20
    share = 0.2

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._knobs = Knobs(setting.problem)

    def propose(self, turn: Turn) -> Proposal:
        """The plan of the setting that Optuna suggests."""
        return Proposal(lambda trial: self._knobs.decode(self._knobs.suggest(trial)))
