"""The schedule: which stage proposes when, and which plan is the incumbent. No torch.

The schedule reads its state from the study's record, so a killed search resumes where it stopped, and trials that other workers finish on
the same study count too. A plan becomes the incumbent only if a paired test on the same samples finds it better
(`evidence/paired_test.py`), and its measurement stops early once it is clearly worse; the time saved goes to further plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from mpq.progress import Advance
from mpq.records.finalist_names import plain_name
from mpq.search.stages.base import Choice, FindSlopes, Rows, Setting, Stage, Turn
from mpq.search.stages.local_model import SlopesStage
from mpq.search.stages.registry import stage_kinds
from mpq.search.study import Measured, Study
from mpq.shown import figure

_ASKED = 3  # proposals allowed per new plan of a stage; knobs often propose a plan again

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, done, total, best error so far)."""


def in_plain_words(advance: Advance, metric: str) -> Progress:
    """A callback for each measured plan, which gives `advance` the stage in plain words and the best error so far."""
    return lambda stage, done, total, best: advance(done, total, f"{plain_name(stage)}, {metric} {figure(best)}")


def trials_of(name: str, trials: int, *, slopes: bool = False) -> int:
    """The number of trials of a stage, with or without slopes; computing slopes counts as its number of passes."""
    *kinds, last = stage_kinds()
    shares = {kind.name: int((kind.share_with_slopes if slopes else kind.share) * trials) for kind in kinds}
    return trials - sum(shares.values()) if name == last.name else shares[name]


class Schedule:
    """The stages of one search, over one study.

    Args:
        study: the trials.
        trials: total number of trials.
        stop: whether no new trial may start.
        on_progress: called after each trial.
        slopes: computes slopes; None if that is not possible.
    """

    def __init__(
        self, study: Study, *, trials: int, stop: Callable[[], bool], on_progress: Progress, slopes: FindSlopes | None = None
    ) -> None:
        self._study, self._trials, self._stop, self._on_progress = study, trials, stop, on_progress
        setting = Setting(study.problem, trials, study, slopes)
        self._stages = [kind(setting) for kind in stage_kinds()]
        self._slopes = SlopesStage.possible(setting)
        self._observed: set[Choice] = set()
        self._read: set[int] = set()  # positions in the study's record
        self._begun: set[str] = set()
        self._left = trials

    @property
    def notes(self) -> tuple[str, ...]:
        """Stages that did not run, and why, for people."""
        return tuple(note for stage in self._stages for note in stage.notes)

    @property
    def lowest(self) -> Measured:
        """The plan with the smallest mean error on the calibration samples, even if by chance; held-out samples decide later."""
        return min((found for found in self._study.finished if found.estimate is None), key=lambda found: found.mean)

    def fixed(self, name: str, choice: Choice) -> Measured:
        """A plan that is given in advance, measured once."""
        self._study.refresh()
        finished = [found for found in self._study.stage(name) if found.choice == choice]
        found = finished[0] if finished else self._study.trial(name, lambda _: choice)
        self._observe(found)
        self._on_progress(name, 1, 1, found.mean)
        return found

    def run(self, best: Measured) -> Iterator[tuple[str, Measured]]:
        """Run all stages; each stage's title and the best plan after it."""
        for stage in self._stages:
            best = self._after(stage, best)
            yield stage.title or stage.name, best

    def _after(self, stage: Stage, best: Measured) -> Measured:
        """The best plan after the stage's number of new plans; a known plan does not count, and a plan stopped early counts in part."""
        spent = stage.begin(best)
        if spent is None:
            self._slopes = self._slopes and not isinstance(stage, SlopesStage)
            return best
        self._begun.add(stage.name)
        total, new, seen = self._total(stage), spent, 0
        while new < total and seen < _ASKED * total:
            new += stage.prepare(best, total - new)
            found = self._next()
            if found is None:
                if self._stop() or not self._measured(stage, best):
                    break
                continue
            own = found.stage == stage.name
            seen += own
            if found.choice in self._observed:
                continue
            new += len(found.errors) / len(best.errors) if own else 0.0
            self._observe(found)
            if found.better_than(best):
                best = found
            self._on_progress(stage.name, min(total, math.ceil(new)), total, best.mean)
        self._left -= min(total, math.ceil(new))
        return best

    def _total(self, stage: Stage) -> int:
        """The number of new plans of a stage; the last stage also gets what earlier stages did not use."""
        return self._left if stage is self._stages[-1] else trials_of(stage.name, self._trials, slopes=self._slopes)

    def _next(self) -> Measured | None:
        """The next finished trial of the stages so far, from any worker; None when all have been read."""
        self._study.refresh()
        for position, found in enumerate(self._study.finished):
            if position not in self._read and found.stage in self._begun:
                self._read.add(position)
                return found
        return None

    def _measured(self, stage: Stage, best: Measured) -> bool:
        """Whether the stage proposed a plan, which was then measured."""
        number = len(self._study.stage(stage.name))
        generator, known = self._study.generator(stage.name, number), self._study.known
        proposal = stage.propose(Turn(number, best, generator, known, self._study.finished, self._expected()))
        if proposal is None:
            return False
        self._study.trial(stage.name, proposal.choose, note=proposal.note, incumbent=best)
        return True

    def _expected(self) -> Rows:
        rows = (stage.expected() for stage in self._stages)
        table = [[option.error for option in group.options] for group in self._study.problem.groups]
        return next((each for each in rows if each is not None), table)

    def _observe(self, found: Measured) -> None:
        if found.choice not in self._observed:
            self._observed.add(found.choice)
            for stage in self._stages:
                stage.observe(found)
