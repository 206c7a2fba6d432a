"""The measured stages of a search. Each continues from the study's own record, so that a killed search goes on where it stopped. No torch.

knobs   Optuna's TPE over a few re-weighting parameters, decoded exactly (`knobs.py`)
learn   plans drawn from what all measured plans so far say about the layers, decoded exactly (`beliefs.py`)
swap    exchanges of bits between two layers of the best plan, the likeliest by those beliefs first (`polish.py`); when all of these
        are known, of the next best plan

A plan becomes the incumbent only if a paired test on the same samples finds it better (`records/paired.py`), and is given up part of
the way once the test finds it worse; the samples saved go to further plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mpq.search.beliefs import Beliefs
from mpq.search.knobs import Knobs
from mpq.search.polish import describe, propose
from mpq.search.study import Measured, Study

KNOBS, LEARN, SWAP = "knobs", "learn", "swap"
_SHARES = {KNOBS: 0.2, LEARN: 0.5}  # of the trials; swaps take the rest
_REDRAWS = 20  # plans known already that are drawn before the stage gives up, each from a wider belief
_WIDENING = 0.25
_ASKED = 3  # times that a stage may ask for a plan, for each new one that it has; knobs often give a plan again

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, done, total, best error so far)."""


def trials_of(stage: str, trials: int) -> int:
    """How many of all trials a stage takes."""
    first, second = int(_SHARES[KNOBS] * trials), int(_SHARES[LEARN] * trials)
    return {KNOBS: first, LEARN: second, SWAP: trials - first - second}[stage]


class Stages:
    """The stages of one search, over one study.

    Args:
        study: the trials.
        trials: how many of them in all.
        stop: whether no further trial may begin.
        on_progress: told after each trial.
    """

    def __init__(self, study: Study, *, trials: int, stop: Callable[[], bool], on_progress: Progress) -> None:
        self._study, self._trials, self._stop, self._on_progress = study, trials, stop, on_progress
        self._problem = study.problem
        self._beliefs = Beliefs(study.problem)
        self._counted: set[tuple[int, ...]] = set()
        self._left = trials

    @property
    def lowest(self) -> Measured:
        """The plan of the lowest mean error on the calibration samples, be that chance or not: held-out samples will tell."""
        return min((found for found in self._study.finished if found.estimate is None), key=lambda found: found.mean)

    def fixed(self, stage: str, choice: tuple[int, ...]) -> Measured:
        """A plan that is known beforehand, measured once."""
        finished = self._study.stage(stage)
        found = finished[0] if finished else self._study.trial(stage, lambda _: choice)
        self._learn(found)
        self._on_progress(stage, 1, 1, found.mean)
        return found

    def knobs(self, best: Measured) -> Measured:
        """The best of the plans that the knobs give, or `best`."""
        knobs = Knobs(self._problem)
        return self._best(
            KNOBS, best, lambda _, best: self._study.trial(KNOBS, lambda trial: knobs.decode(knobs.suggest(trial)), incumbent=best)
        )

    def learn(self, best: Measured) -> Measured:
        """The best of the plans drawn from the beliefs, or `best`."""
        return self._best(LEARN, best, self._drawn)

    def swap(self, best: Measured) -> Measured:
        """The best plan reached by exchanging bits, or `best`."""
        return self._best(SWAP, best, self._swapped)

    def _best(self, stage: str, best: Measured, next_trial: Callable[[int, Measured], Measured | None]) -> Measured:
        """The best plan after as many new plans as the stage has; a known plan does not count, and a plan given up counts in part."""
        total, finished, new = self._total(stage), self._study.stage(stage), 0.0
        for number in range(_ASKED * total):
            if new >= total:
                break
            if number < len(finished):
                found: Measured | None = finished[number]
            else:
                found = None if self._stop() else next_trial(number, best)
            if found is None:
                break
            if found.choice in self._counted:
                continue
            new += len(found.errors) / len(best.errors)
            self._learn(found)
            if found.better_than(best):
                best = found
            self._on_progress(stage, min(total, math.ceil(new)), total, best.mean)
        self._left -= min(total, math.ceil(new))
        return best

    def _total(self, stage: str) -> int:
        """The new plans of a stage; what earlier stages left over goes to the last one."""
        return self._left if stage == SWAP else trials_of(stage, self._trials)

    def _drawn(self, number: int, best: Measured) -> Measured | None:
        generator = self._study.generator(LEARN, number)
        for redraw in range(_REDRAWS):
            solution = self._problem.solve(self._beliefs.draw(generator, widened=1 + _WIDENING * redraw))
            assert solution is not None, "the problem was checked to be feasible"
            choice = solution.choice
            if not self._study.knows(choice):
                return self._study.trial(LEARN, lambda _, choice=choice: choice, incumbent=best)  # type: ignore[misc]
        return None

    def _swapped(self, number: int, best: Measured) -> Measured | None:
        generator, known, expected = self._study.generator(SWAP, number), self._study.known, self._beliefs.expected()
        for near in (best, *sorted(self._study.finished, key=lambda found: found.mean)):
            choice = propose(self._problem, near.choice, known, generator, expected)
            if choice is not None:
                note = describe(self._problem, near.choice, choice)
                return self._study.trial(SWAP, lambda _, choice=choice: choice, note=note, incumbent=best)  # type: ignore[misc]
        return None

    def _learn(self, found: Measured) -> None:
        if found.choice not in self._counted:
            self._counted.add(found.choice)
            self._beliefs.observe(found.choice, found.mean)
