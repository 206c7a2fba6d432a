"""Drift alarms: compares sketches of a running model with its baseline, and the answers of a reference with the model's own.

Two sketches of one tensor are compared by the population stability index, the sum over bins of (p - q) ln(p / q). Each bin is smoothed by
half a value, so that empty bins have little weight if few values were seen. The limit has two parts: what the samples seen so far explain,
and a share of how much single samples differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mpq.evidence.running_mean import RunningMean
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import Fallback, Line, MeanFacts
from mpq.records.sketch import Sketch, sketch_in
from mpq.records.stored_sketches import ENTROPY, MARGIN

DRIFTED = 0.25
"""A stability index that counts as drift for every tensor, beyond what few samples explain."""
BEYOND = 0.01
"""A share of values beyond the calibrated range that is reported, beyond what few samples explain."""
ALPHA = 0.001
"""The chance that the bounds of a shadowed mean are ever wrong while nothing has changed."""
FEWEST = 50
"""Samples that a tensor is judged by."""
ALARMS = {
    "drift": "stability index",
    "range": "share of values beyond the calibrated range",
    "not finite": "values that are not finite",
    "kl": "lower bound of the KL divergence from the reference",
    "agreement": "upper bound of the top-1 agreement with the reference",
    "kernel": "runs of another kernel than expected",
}
"""What the value of an alarm is, by its kind."""
_LEAST = 0.01  # smaller stability indices are never reported, however little samples differ
_SHARE = 0.2  # of how much single samples differ
_NOISE = 5.0  # times the expected stability index of so many samples
_CERTAIN = 2.0  # times the limit, for the certainty of answers, which is higher on data that the model was trained on
_STRANGE = 3.0  # samples of which every value may be beyond the calibrated range


@dataclass(frozen=True)
class Alarm:
    """One alarm: its kind, one of `ALARMS`, the tensor or layer, the value and its limit, and the reason where these do not say it."""

    kind: str
    name: str
    value: float
    limit: float
    reason: str = ""

    @property
    def line(self) -> str:
        """The alarm in one line."""
        if self.reason:
            return f"{self.kind} in '{self.name}': {self.reason}"
        return f"{self.kind} in '{self.name}': {ALARMS[self.kind]} {self.value:.3g}, limit {self.limit:.3g}"


@dataclass(frozen=True)
class Comparison:
    """A tensor beside its baseline; without one, or without samples, only `samples` and `not_finite` say something.

    Args:
        name: of the tensor.
        samples: seen.
        not_finite: values that are not.
        index: the stability index; None without a baseline or samples.
        limit: of the index, for so many samples.
        beyond: share of values beyond the range of the baseline.
    """

    name: str
    samples: int
    not_finite: int
    index: float | None = None
    limit: float = 0.0
    beyond: float = 0.0

    @property
    def ratio(self) -> float | None:
        """The index over its limit; None with fewer than 50 samples, or if the baseline has no such tensor."""
        return None if self.index is None or self.samples < FEWEST else self.index / self.limit


def compared(baseline: Baseline, sketches: Mapping[str, Sketch]) -> Iterator[Comparison]:
    """Each tensor beside its baseline, in their order."""
    for name, found in list(sketches.items()):  # another thread may add one
        wanted = baseline.tensors.get(name)
        if wanted is None or not found.samples:
            yield Comparison(name, found.samples, found.not_finite)
        else:
            limit = drift_limit(baseline, name, found.samples)
            yield Comparison(name, found.samples, found.not_finite, stability_index(wanted, found), limit, found.beyond(wanted))


def compared_in(line: Line, baseline: Baseline) -> list[Comparison]:
    """The tensors of a line of a log beside their baseline."""
    return list(compared(baseline, _sketches_in(line)))


def samples_of(tensors: Iterable[Comparison]) -> int:
    """The samples that the tensors with a baseline have, at most; with fewer than `FEWEST`, none of them is judged."""
    return max((each.samples for each in tensors if each.index is not None), default=0)


def alarms(baseline: Baseline, sketches: Mapping[str, Sketch]) -> Iterator[Alarm]:
    """Alarms for tensors, in their order. With fewer than 50 samples, only values that are not finite are reported."""
    for each in compared(baseline, sketches):
        wanted = baseline.tensors.get(each.name)
        if each.not_finite and not (wanted and wanted.not_finite):
            yield Alarm("not finite", each.name, each.not_finite, 0)
        if each.index is None or each.samples < FEWEST:
            continue
        if each.index > each.limit:
            yield Alarm("drift", each.name, each.index, each.limit)
        most = BEYOND + _STRANGE / each.samples
        if each.beyond > most and each.name not in (ENTROPY, MARGIN):  # no values that a range clips
            yield Alarm("range", each.name, each.beyond, most)


def drift_limit(baseline: Baseline, name: str, samples: int) -> float:
    """Stability index above which a tensor counts as drifted, given the number of samples seen.

    A tensor that pools many values of a sample differs little between samples, so its limit is lower than the customary 0.25.
    """
    noise, known = baseline.noise.get(name, 0.0), max(1, baseline.tensors[name].samples)
    limit = min(DRIFTED, max(_LEAST, _SHARE * noise)) + _NOISE * noise * (1 / samples + 1 / known)
    return _CERTAIN * limit if name in (ENTROPY, MARGIN) else limit


def shadow_alarms(
    divergence: RunningMean, agreement: RunningMean, *, most_kl: float | None = None, least_agreement: float | None = None
) -> Iterator[Alarm]:
    """Alarms for means over shadowed calls that exceed their limits; the bounds are valid no matter how often you check."""
    low, _ = divergence.bounds(ALPHA)
    if most_kl is not None and low > most_kl:
        yield Alarm("kl", "output", low, most_kl)
    _, high = agreement.bounds(ALPHA)
    if least_agreement is not None and high < least_agreement:
        yield Alarm("agreement", "output", high, least_agreement)


def kernel_alarms(fallbacks: Iterable[Fallback]) -> Iterator[Alarm]:
    """An alarm for each kernel that ran in place of the expected one, under the name of the first layer."""
    found: dict[tuple[str, str], list[Fallback]] = {}
    for each in fallbacks:
        found.setdefault((each.ran, each.expected), []).append(each)
    for (ran, expected), same in found.items():
        count, others = sum(each.count for each in same), len(same) - 1
        elsewhere = f" there and in {others:,} other layer{'s' * (others > 1)}" if others else ""
        reason = f"{ran} ran instead of {expected}, {'once' if count == 1 else f'{count:,} times'}{elsewhere}"
        yield Alarm("kernel", same[0].layer, count, 0, reason)


def alarms_of(line: Line, baseline: Baseline) -> list[Alarm]:
    """The alarms at the time when a line of a log was written."""
    divergence, agreement = mean_in(line.divergence), mean_in(line.agreement)
    shadowed = shadow_alarms(divergence, agreement, most_kl=line.most_kl, least_agreement=line.least_agreement)
    return [*alarms(baseline, _sketches_in(line)), *shadowed, *kernel_alarms(line.fallbacks)]


def mean_in(facts: MeanFacts) -> RunningMean:
    """A running mean as a log has it."""
    return RunningMean(facts.most, facts.count, facts.total, facts.spread)


def _sketches_in(line: Line) -> dict[str, Sketch]:
    return {name: sketch_in(facts) for name, facts in line.tensors.items()}


def stability_index(wanted: Sketch, found: Sketch) -> float:
    """The population stability index of two sketches; 0 if either is empty."""
    if not wanted.values or not found.values:
        return 0.0
    used = (wanted.counts + found.counts) > 0
    first, second = wanted.counts[used] + 0.5, found.counts[used] + 0.5
    p, q = first / first.sum(), second / second.sum()
    return float(((p - q) * np.log(p / q)).sum())
