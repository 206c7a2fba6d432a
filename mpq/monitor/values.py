"""The values of a monitor as metrics, for every exporter. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mpq.evidence.drift import ALARMS, ALPHA, Alarm, compared

if TYPE_CHECKING:
    from mpq.evidence.running_mean import RunningMean
    from mpq.monitor.kernels import Kernels
    from mpq.monitor.watch import Monitor

KINDS: dict[str, tuple[Literal["counter", "gauge"], str]] = {
    "mpq_calls": ("counter", "Calls of the model."),
    "mpq_sampled_calls": ("counter", "Calls that were sketched."),
    "mpq_stability_index": ("gauge", "Population stability index against the baseline, by tensor."),
    "mpq_stability_limit": ("gauge", "Stability index above which a tensor counts as drifted, given the number of samples seen."),
    "mpq_beyond_range": ("gauge", "Share of values beyond the calibrated range, by tensor."),
    "mpq_not_finite": ("counter", "Values that are not finite, by tensor."),
    "mpq_alarms": ("gauge", "Number of alarms, by kind."),
    "mpq_kernel_runs": ("counter", "Runs of each kernel in sampled calls of a packed model, by kernel."),
    "mpq_kernel_fallbacks": ("gauge", "Runs of another kernel than expected in sampled calls, by layer and kernel."),
    "mpq_shadowed_calls": ("counter", "Calls that were also run through the reference."),
    "mpq_kl_divergence": ("gauge", "Mean KL divergence from the reference in nats, and its bounds."),
    "mpq_agreement": ("gauge", "Mean top-1 agreement with the reference, and its bounds."),
}
"""Kind and meaning of each metric by name."""


@dataclass(frozen=True)
class Point:
    """One value now.

    Args:
        name: of the metric, one of `KINDS`.
        value: of the metric.
        labels: what it is of, for example {"tensor": "output"}.
    """

    name: str
    value: float
    labels: dict[str, str]


def values(monitor: Monitor) -> Iterator[Point]:
    """All current values; those of shadowed calls and kernels only once there are some."""
    yield Point("mpq_calls", monitor.calls, {})
    yield Point("mpq_sampled_calls", monitor.sampled, {})
    for each in compared(monitor.baseline, monitor.sketches):
        of = {"tensor": each.name}
        yield Point("mpq_not_finite", each.not_finite, of)
        if each.index is not None:
            yield Point("mpq_stability_index", each.index, of)
            yield Point("mpq_stability_limit", each.limit, of)
            yield Point("mpq_beyond_range", each.beyond, of)
    yield from _alarms(monitor.alarms())
    yield from _kernels(monitor.kernels)
    if monitor.divergence.count:
        yield Point("mpq_shadowed_calls", monitor.divergence.count, {})
        yield from _mean("mpq_kl_divergence", monitor.divergence)
        yield from _mean("mpq_agreement", monitor.agreement)


def _alarms(found: list[Alarm]) -> Iterator[Point]:
    for kind in ALARMS:
        yield Point("mpq_alarms", sum(alarm.kind == kind for alarm in found), {"kind": kind})


def _kernels(kernels: Kernels) -> Iterator[Point]:
    runs = Counter[str]()
    for found in (kernels.by_layer() or {}).values():
        runs.update(found)
    for name, count in sorted(runs.items()):
        yield Point("mpq_kernel_runs", count, {"kernel": name})
    for each in kernels.fallbacks():
        yield Point("mpq_kernel_fallbacks", each.count, {"layer": each.layer, "kernel": each.ran, "expected": each.expected})


def _mean(name: str, mean: RunningMean) -> Iterator[Point]:
    low, high = mean.bounds(ALPHA)
    for label, value in (("lower", low), ("mean", mean.mean), ("upper", high)):
        yield Point(name, value, {"bound": label})
