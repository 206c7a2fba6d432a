"""Drift alarms: compares sketches of a running model with its baseline, and the answers of a reference with the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mpq.monitor.baseline import Baseline
from mpq.monitor.bounds import RunningMean
from mpq.monitor.sketch import Sketch, stability_index

DRIFTED = 0.25
"""A stability index from here on counts as drift, if it is well over that of the calibration data itself."""
BEYOND = 0.01
"""A share of values beyond the calibrated range from here on is reported."""
ALPHA = 0.001
"""The chance that the bounds of a shadowed mean are ever wrong while nothing has changed."""
_NOISE = 5.0
_FEWEST = 20  # calls


@dataclass(frozen=True)
class Alarm:
    """One alarm: its kind ("drift", "range", "not finite", "kl", "agreement"), the tensor, the value and its limit."""

    kind: str
    name: str
    value: float
    limit: float

    @property
    def line(self) -> str:
        """The alarm in one line."""
        words = {
            "drift": "stability index",
            "range": "share of values beyond the calibrated range",
            "not finite": "values that are not finite",
            "kl": "lower bound of the KL divergence from the reference",
            "agreement": "upper bound of the top-1 agreement with the reference",
        }
        return f"{self.kind} in '{self.name}': {words[self.kind]} {self.value:.3g}, limit {self.limit:.3g}"


def alarms(baseline: Baseline, sketches: Mapping[str, Sketch]) -> Iterator[Alarm]:
    """Alarms for tensors, worst first within one tensor. With fewer than 20 calls, only values that are not finite are reported."""
    for name, found in sketches.items():
        wanted = baseline.tensors.get(name)
        if found.not_finite and not (wanted and wanted.not_finite):
            yield Alarm("not finite", name, found.not_finite, 0)
        if wanted is None or found.calls < _FEWEST:
            continue
        index, limit = stability_index(wanted, found), max(DRIFTED, _NOISE * baseline.noise.get(name, 0.0))
        if index > limit:
            yield Alarm("drift", name, index, limit)
        if (beyond := found.beyond(wanted)) > BEYOND:
            yield Alarm("range", name, beyond, BEYOND)


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
