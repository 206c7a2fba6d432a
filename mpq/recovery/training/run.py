"""Training: the quantized model follows the gradient of its error to the unquantized one, at no cost in bytes.

Knowledge distillation end to end (Hinton et al. 2015, arXiv 1503.02531) through rounded values (straight-through: Bengio et al. 2013,
arXiv 1308.3432): no labels are needed. A part of the samples is kept aside: it chooses the learning rate, decides when to stop, and picks
the state that is given back. Whoever calls decides on samples that the run has never seen.

Everything follows from the seed, so a killed run resumes from its last checkpoint and gives the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mpq.activations.errors import rounded_errors
from mpq.activations.rounding import changed
from mpq.errors import NumericsError
from mpq.gradients.error_gradients import error_gradients
from mpq.models.running.metrics import Metric
from mpq.models.running.reference import Reference
from mpq.recovery.base import Progress
from mpq.recovery.trainable import Trainable
from mpq.recovery.training.checkpoints import Checkpoint, Checkpoints
from mpq.recovery.training.job import Job, Line, Trained
from mpq.recovery.training.labels import LabelMix
from mpq.recovery.training.schedule import REMEMBERED, clipped, length_of, share_at
from mpq.recovery.training.teacher import teacher_for

RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
CODE_RATES = (0.3, 1.0, 3.0, 10.0)
_EVALUATIONS = 20
_PATIENCE = 6  # evaluations without a smaller error
_UNSETTLED = 0.5  # of the steps: at a large rate, codes go back and forth and hide what has been learned, so a run never ends at one
_HOPELESS = 2.0  # times the first error: evaluations above it count from the beginning
_TRIED = (24, 48)  # steps, at most, of a run that tries a rate; of codes, which take longer to show what they gain, the second
_TRIED_SHARE = (20, 6)  # the same, as parts of all steps
HALVED = "with half the rate"  # in an event
_HALVINGS = 6  # of a rate that gives errors that are not numbers

Watch = Callable[[list[Line]], None]
"""Given all lines after each evaluation."""


def train(
    job: Job, *, checkpoints: Checkpoints | None = None, on_progress: Progress | None = None, on_line: Watch | None = None
) -> Trained:
    """Train a quantized model.

    Args:
        job: what and how.
        checkpoints: where the run can go on from if it is killed.
        on_progress: called after each step.
        on_line: given all lines after each evaluation.

    Raises:
        DataError: if there are fewer than 2 samples.
        ModelError: if no gradient flows.
        NumericsError: if errors are not numbers however small the rate.
    """
    run = _Run(job, checkpoints, on_progress, on_line)
    found = None if checkpoints is None else checkpoints.newest()
    if found is None:
        run.begin()
    else:
        run.resume(found)
    run.go()
    weights, vectors = run.best.snapshot()
    improved = run.least < run.lines[0].aside
    state = job.state.changed(weights, vectors, run.best.ranges.groups) if improved else job.state
    return Trained(state, improved, run.lines, run.seconds, run.reference.data.samples, None if found is None else int(found.facts["step"]))


@dataclass
class _Place:
    """Where a run is: all that a checkpoint holds besides tensors."""

    step: int = 0
    steps: int = 0
    rate: float = 1.0
    code_rate: float = 1.0
    least: float = math.inf
    stale: int = 0
    halvings: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


class _Run:
    """One run, from its beginning or from a checkpoint."""

    def __init__(self, job: Job, checkpoints: Checkpoints | None, on_progress: Progress | None, on_line: Watch | None) -> None:
        self._since = time.monotonic()
        self._job, self._checkpoints, self._on_progress, self._on_line = job, checkpoints, on_progress, on_line
        used, aside = job.settings.parts(job.data)
        self._teacher = teacher_for(job.module, used, job.metric, folder=None if checkpoints is None else checkpoints.folder)
        loss = self._loss(self._teacher.metric)
        self.reference = Reference(job.module, used, loss, cache_bytes=self._teacher.memory, offload=self._teacher.offload)
        self._aside = Reference(job.module, aside, self._loss(job.metric))
        self._place, self._now, self.best = _Place(), self._fresh(), self._fresh()
        self._good = self._now.tensors()
        self._tried = 0  # steps of the last short runs

    @property
    def least(self) -> float:
        """The least error on the samples kept aside."""
        return self._place.least

    @property
    def lines(self) -> list[Line]:
        """All evaluations."""
        return [Line(**line) for line in self._place.lines]

    @property
    def seconds(self) -> float:
        """That the run has taken, earlier parts included."""
        return self._place.seconds + time.monotonic() - self._since

    def begin(self) -> None:
        """Evaluate the initial state, find a rate, and fix the number of steps."""
        place, settings = self._place, self._job.settings
        place.rate = place.code_rate = settings.rate or 1.0
        place.steps = settings.epochs * len(self.reference.data.batches)
        place.least = first = self._error(self._now)
        place.lines.append(asdict(Line(0, place.steps, None, first, 0.0, 0.0)))
        began = time.monotonic()
        found, steps = self._find_rates(first) if settings.rate is None else ("", self._one_step())
        if settings.minutes is not None:
            place.steps = max(1, int((60 * settings.minutes - self.seconds) * steps / (time.monotonic() - began)))
        if settings.rate is None:
            found += self._slow_codes()
        event = "; ".join(filter(None, (self._job.note, self._note(first), found)))
        place.lines[0] |= {"of": place.steps, "rate": place.rate, "code_rate": place.code_rate, "event": event}
        place.lengths, place.losses = [], []
        self._save()

    def resume(self, found: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self._place = _Place(**found.facts)
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}}
        for name, tensor in found.tensors.items():
            part, _, rest = name.partition(":")
            parts[part][rest] = tensor
        self._now.restore(parts["now"])
        self.best.restore(parts["best"])
        self._good = self._now.tensors()
        if self._on_line is not None:  # the run may have been killed before it wrote the last of them
            self._on_line(self.lines)

    def go(self) -> None:
        """Make the steps that are left."""
        place = self._place
        every = max(1, place.lines[0]["of"] // _EVALUATIONS)
        while place.step < place.steps and place.stale < _PATIENCE:
            share = share_at(place.step, place.steps)
            if not self._step(self._now, place.step, (place.rate * share, place.code_rate * share)):
                self._roll_back("an error of NaN")
                continue
            place.step += 1
            if self._on_progress is not None:
                self._on_progress(place.step, place.steps, f"error {place.lines[-1]['aside']:.4g} on the samples kept aside")
            if place.step % every == 0 or place.step == place.steps:
                self._evaluate()

    def _step(self, state: Trainable, step: int, rates: tuple[float, float]) -> bool:
        """One step at these multiples of the rates, of codes the second; False if its error is not a number."""
        count = len(self.reference.data.batches)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self._job.settings.seed + step // count))
        error, gradients = error_gradients(
            self.reference,
            int(order[step % count]),
            state.values(),
            state.wanted,
            around=lambda: changed(self._job.module, state.ranges.changes()),
        )
        length = length_of(gradients)
        if not math.isfinite(error) or not math.isfinite(length):
            return False
        place = self._place
        state.step(clipped(gradients, length, place.lengths), rates[0], codes=rates[1])
        place.lengths = [*place.lengths, length][-REMEMBERED:]
        place.losses.append(error)
        return True

    def _evaluate(self, event: str = "") -> None:
        place, error = self._place, self._error(self._now)
        if not math.isfinite(error):
            self._roll_back("an error on the samples kept aside that is not a number")
            return
        loss = sum(place.losses) / len(place.losses) if place.losses else None
        place.losses = []
        if error < place.least:
            place.least, place.stale = error, 0
            self.best.restore(self._now.tensors())
        elif place.step > _UNSETTLED * place.steps or error > _HOPELESS * place.lines[0]["aside"]:
            place.stale += 1
        if place.stale >= _PATIENCE:
            event = f"no gain in {_PATIENCE} evaluations: {self._end_sooner(error)}"
        place.lines.append(asdict(Line(place.step, place.steps, loss, error, place.rate, place.code_rate, event)))
        self._good = self._now.tensors()
        self._save()

    def _end_sooner(self, error: float) -> str:
        """Stop where the error is hopeless, else let the rate fall to zero in half of the steps that are left; returns what was done."""
        place = self._place
        if error > _HOPELESS * place.lines[0]["aside"]:
            return "stopped"
        place.steps, place.stale = place.step + (place.steps - place.step) // 2, 0
        return f"ends at step {place.steps}"

    def _roll_back(self, why: str) -> None:
        """Back to the last evaluation, at half the rate."""
        place = self._place
        place.halvings += 1
        if place.halvings > _HALVINGS:
            raise NumericsError(f"training gives {why} at any rate: check the data for values out of range")
        self._now = self._fresh()
        self._now.restore(self._good)
        place.step, place.losses = place.lines[-1]["step"], []
        place.rate, place.code_rate = place.rate / 2, place.code_rate / 2
        event = f"{why}: back to step {place.step} {HALVED}"
        place.lines.append(asdict(replace(self.lines[-1], loss=None, rate=place.rate, code_rate=place.code_rate, event=event)))
        self._save()

    def _find_rates(self, first: float) -> tuple[str, int]:
        """Short runs at each rate, first with fixed codes, then with separate rates for codes; returns a note and the steps made."""
        place, told, made, tried = self._place, list[str](), 0, dict[float, float]()
        for codes in (False, True) if self._now.codes else (False,):
            tried, rates = {}, (0.0, *CODE_RATES) if codes else RATES
            self._tried = steps = max(1, min(_TRIED[codes], place.steps // _TRIED_SHARE[codes]))
            for number, rate in enumerate(rates):
                tried[rate] = self._try((place.rate, rate) if codes else (rate, 0.0), steps)
                made += steps
                if self._on_progress is not None:
                    self._on_progress(number + 1, len(rates), f"finding a learning rate: {tried[rate]:.4g} at {rate:g}")
                if tried[rate] > 2 * first:
                    break  # larger ones are worse
            best = min(tried, key=lambda rate: (tried[rate], rate))
            place.rate, place.code_rate = (place.rate, best) if codes else (best, 0.0)
            told.append(f"{'rates of codes' if codes else 'rates'} tried: " + ", ".join(f"{r:g} gives {e:.4g}" for r, e in tried.items()))
        return "; ".join(told), made

    def _slow_codes(self) -> str:
        """Lower the rate of codes for a run that is longer than those that tried it; returns a note."""
        place = self._place
        if not place.code_rate or place.steps <= self._tried:
            return ""
        place.code_rate *= math.sqrt(self._tried / place.steps)
        return f"; the rate of codes is lowered to {place.code_rate:.3g}, because this run has {place.steps} steps, not {self._tried}"

    def _try(self, rates: tuple[float, float], steps: int) -> float:
        """The error on the samples kept aside after a short run."""
        state, self._place.lengths = self._fresh(), []
        shares = (share_at(step, steps) for step in range(steps))
        whole = all(self._step(state, step, (rates[0] * share, rates[1] * share)) for step, share in enumerate(shares))
        error = self._error(state) if whole else math.inf
        return error if math.isfinite(error) else math.inf

    def _loss(self, divergence: Metric) -> Metric:
        return LabelMix(self._job.metric, divergence) if self._job.settings.labels else divergence

    def _note(self, first: float) -> str:
        """How the outputs are kept, and how far the loss is from that of all classes."""
        teacher = self._teacher
        if teacher.metric is self._job.metric:
            return teacher.note
        kept = _errors(Reference(self._job.module, self._aside.data, self._loss(teacher.metric)), self._now)
        return f"{teacher.note}; the first loss on the samples kept aside is {float(kept.mean()):.4g} in place of {first:.4g}"

    def _one_step(self) -> int:
        """One discarded step, to measure its time."""
        self._step(self._fresh(), 0, (0.0, 0.0))
        return 1

    def _fresh(self) -> Trainable:
        job = self._job
        return Trainable(job.module, job.layers, job.state, codes=job.settings.codes, activations=job.activations)

    def _error(self, state: Trainable) -> float:
        return float(_errors(self._aside, state).mean())

    def _save(self) -> None:
        if self._checkpoints is not None:
            tensors = {f"now:{name}": tensor for name, tensor in self._now.tensors().items()}
            tensors |= {f"best:{name}": tensor for name, tensor in self.best.tensors().items()}
            self._checkpoints.save(len(self._place.lines), asdict(self._place) | {"seconds": self.seconds}, tensors)
        if self._on_line is not None:
            self._on_line(self.lines)


def _errors(reference: Reference, state: Trainable) -> Tensor:
    return rounded_errors(reference, state.ranges.changes(), state.values())
