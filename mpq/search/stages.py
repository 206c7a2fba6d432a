"""The measured stages of a search. Each continues from the study's own record, so that a killed search goes on where it stopped. No torch.

slopes  the table linearised again at the best plan, by a gradient; plans drawn from that and from what measured plans add, decoded
        exactly (`local.py`); where the model gives gradients
knobs   Optuna's TPE over a few re-weighting parameters, decoded exactly (`knobs.py`)
learn   plans drawn from what all measured plans so far say about the layers, decoded exactly (`beliefs.py`)
swap    exchanges of bits between two layers of the best plan, the likeliest by those beliefs first (`polish.py`); when all of these
        are known, of the next best plan

A plan becomes the incumbent only if a paired test on the same samples finds it better (`records/paired.py`), and is given up part of
the way once the test finds it worse; the samples saved go to further plans. What other workers on the same study finish counts for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from mpq.errors import MpqError
from mpq.records.slopes import Slopes
from mpq.schemes import Scheme
from mpq.search.beliefs import Beliefs
from mpq.search.knobs import Knobs
from mpq.search.local import Local, Prices, prices_of
from mpq.search.polish import describe, propose
from mpq.search.study import Measured, Study

SLOPES, KNOBS, LEARN, SWAP = "slopes", "knobs", "learn", "swap"
_WITH = {SLOPES: 0.5, KNOBS: 0.0, LEARN: 0.3}  # of the trials where there are slopes; swaps take the rest
_WITHOUT = {SLOPES: 0.0, KNOBS: 0.2, LEARN: 0.5}
_FEWEST = 16  # trials below which slopes are not worth what finding them costs
_REDRAWS = 20  # plans known already that are drawn before the stage gives up, each from a wider belief
_WIDENING = 0.25
_ASKED = 3  # times that a stage may ask for a plan, for each new one that it has; knobs often give a plan again
_FAR, _LONG = 3, 8  # slopes are found again when the best plan has moved by so many groups, or at all after so many trials

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, done, total, best error so far)."""
FindSlopes = Callable[[Mapping[str, Scheme]], Slopes]
"""What each scheme of each layer would change in a plan's error; raises an MpqError where that cannot be told."""


def trials_of(stage: str, trials: int, *, slopes: bool = False) -> int:
    """How many of all trials a stage takes, with or without a stage of slopes; finding slopes counts as the passes that it takes."""
    shares = _WITH if slopes else _WITHOUT
    taken = {name: int(share * trials) for name, share in shares.items()}
    return taken[stage] if stage in taken else trials - sum(taken.values())


class Stages:
    """The stages of one search, over one study.

    Args:
        study: the trials.
        trials: how many of them in all.
        stop: whether no further trial may begin.
        on_progress: told after each trial.
        slopes: finds slopes; None where there is no way to.

    Attributes:
        notes: what was left out and why, for people.
    """

    def __init__(
        self, study: Study, *, trials: int, stop: Callable[[], bool], on_progress: Progress, slopes: FindSlopes | None = None
    ) -> None:
        self._study, self._trials, self._stop, self._on_progress = study, trials, stop, on_progress
        self._problem = study.problem
        self._beliefs = Beliefs(study.problem)
        self._local: Local | None = None
        self._find = slopes if trials >= _FEWEST else None
        self._counted: set[tuple[int, ...]] = set()
        self._taken: set[int] = set()  # places in the study's record
        self._begun: list[str] = []
        self._learned: list[Measured] = []
        self._since, self._cost = 0, 0.0
        self._left = trials
        self.notes: tuple[str, ...] = ()

    @property
    def lowest(self) -> Measured:
        """The plan of the lowest mean error on the calibration samples, be that chance or not: held-out samples will tell."""
        return min((found for found in self._study.finished if found.estimate is None), key=lambda found: found.mean)

    def fixed(self, stage: str, choice: tuple[int, ...]) -> Measured:
        """A plan that is known beforehand, measured once."""
        self._study.refresh()
        finished = self._study.stage(stage)
        found = finished[0] if finished else self._study.trial(stage, lambda _: choice)
        self._learn(found)
        self._on_progress(stage, 1, 1, found.mean)
        return found

    def slopes(self, best: Measured) -> Measured:
        """The best of the plans that slopes lead to, or `best`."""
        spent = self._anchored(best, math.inf) if self._find is not None else 0.0
        if spent == 0:
            self._find = None
            return best
        return self._best(SLOPES, best, lambda number, best: self._drawn(SLOPES, number, best), spent=spent)

    def knobs(self, best: Measured) -> Measured:
        """The best of the plans that the knobs give, or `best`."""
        knobs = Knobs(self._problem)
        return self._best(
            KNOBS, best, lambda _, best: self._study.trial(KNOBS, lambda trial: knobs.decode(knobs.suggest(trial)), incumbent=best)
        )

    def learn(self, best: Measured) -> Measured:
        """The best of the plans drawn from the beliefs, or `best`."""
        return self._best(LEARN, best, lambda number, best: self._drawn(LEARN, number, best))

    def swap(self, best: Measured) -> Measured:
        """The best plan reached by exchanging bits, or `best`."""
        return self._best(SWAP, best, self._swapped)

    def _best(self, stage: str, best: Measured, next_trial: Callable[[int, Measured], Measured | None], *, spent: float = 0.0) -> Measured:
        """The best plan after as many new plans as the stage has; a known plan does not count, and a plan given up counts in part."""
        total, new, seen = self._total(stage), spent, 0
        self._begun.append(stage)
        while new < total and seen < _ASKED * total:
            if stage == SLOPES:
                new += self._anchored(best, total - new)
            found = self._next()
            if found is None:
                if self._stop() or next_trial(len(self._study.stage(stage)), best) is None:
                    break
                continue
            mine = found.stage == stage
            seen += mine
            if found.choice in self._counted:
                continue
            new += len(found.errors) / len(best.errors) if mine else 0.0
            self._learn(found)
            if found.better_than(best):
                best = found
            self._on_progress(stage, min(total, math.ceil(new)), total, best.mean)
        self._left -= min(total, math.ceil(new))
        return best

    def _next(self) -> Measured | None:
        """The next finished trial of the stages so far, whoever made it; None when all are taken."""
        self._study.refresh()
        for place, found in enumerate(self._study.finished):
            if place not in self._taken and found.stage in self._begun:
                self._taken.add(place)
                return found
        return None

    def _total(self, stage: str) -> int:
        """The new plans of a stage; what earlier stages left over goes to the last one."""
        return self._left if stage == SWAP else trials_of(stage, self._trials, slopes=self._find is not None)

    def _anchored(self, best: Measured, room: float) -> float:
        """What it cost to move the local model to the best plan, where that is due; 0.0 where it is not."""
        if self._local is not None:
            moved = self._local.moved(best.choice)
            if not (moved >= _FAR or (moved and self._since >= _LONG)) or room < 2 * self._cost:
                return 0.0
        prices = self._prices(best)
        if prices is None:
            return 0.0
        self._local, self._cost, self._since = Local(self._problem, best.choice, best.mean, prices), prices.cost, 0
        for found in self._learned:
            if found.choice != best.choice and found.stage in self._begun:  # not the uniform plans, which are far from any anchor
                self._local.observe(found.choice, found.mean)
        return prices.cost

    def _prices(self, best: Measured) -> Prices | None:
        """Prices at the best plan, from the study if any worker has found them."""
        name = "slopes of options " + ",".join(map(str, best.choice))
        kept = self._study.kept(name)
        if kept is not None:
            return Prices.from_dict(kept)
        assert self._find is not None, "no stage asks for slopes where there are none"
        try:
            prices = prices_of(self._problem, best.choice, self._find(self._problem.schemes(best.choice)))
        except MpqError as error:
            self.notes = (*self.notes, f"no slopes: {error}")
            return None
        self._study.keep(name, prices.to_dict())
        return prices

    def _drawn(self, stage: str, number: int, best: Measured) -> Measured | None:
        """The plan of one draw from what is known about the layers: for the first one after slopes were found, the likeliest."""
        generator, known = self._study.generator(stage, number), self._study.known
        model = self._local if stage == SLOPES and self._local is not None else self._beliefs
        for redraw in range(_REDRAWS):
            likeliest = stage == SLOPES and self._since == redraw == 0
            solution = self._problem.solve(model.draw(generator, widened=0.0 if likeliest else 1 + _WIDENING * redraw))
            assert solution is not None, "the problem was checked to be feasible"
            choice = solution.choice
            if choice not in known:
                note = describe(self._problem, best.choice, choice)
                return self._study.trial(stage, lambda _, choice=choice: choice, note=note, incumbent=best)  # type: ignore[misc]
        return None

    def _swapped(self, number: int, best: Measured) -> Measured | None:
        generator, known = self._study.generator(SWAP, number), self._study.known
        expected = (self._local or self._beliefs).expected()
        for near in (best, *sorted(self._study.finished, key=lambda found: found.mean)):
            choice = propose(self._problem, near.choice, known, generator, expected)
            if choice is not None:
                note = describe(self._problem, near.choice, choice)
                return self._study.trial(SWAP, lambda _, choice=choice: choice, note=note, incumbent=best)  # type: ignore[misc]
        return None

    def _learn(self, found: Measured) -> None:
        if found.choice in self._counted:
            return
        self._counted.add(found.choice)
        self._learned.append(found)
        self._since += 1
        self._beliefs.observe(found.choice, found.mean)
        if self._local is not None and found.stage in self._begun:
            self._local.observe(found.choice, found.mean)
