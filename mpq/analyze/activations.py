"""The sensitivity of tensors between layers: each group of them is 8-bit integers alone, and the error at the output is measured.

The range of a tensor is chosen by its effect on the output: on some samples, each tensor is rounded alone in every range that the methods
of `activations/ranges.py` propose. What counts there is the squared error of the logits, not their divergence: a model is so sure of most
calibration samples that a few of them make up nearly all of the divergence. Then each group is rounded on the samples that the work
allows, and all groups together: the sum of their single errors should be near the error of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mpq.activations.calibrate import Calibrated, calibrate
from mpq.activations.errors import rounded_errors
from mpq.activations.ranges import Range, parts_of_error, ranges_of
from mpq.activations.rounding import Change, changes_of, rounded
from mpq.analyze.methods.base import Context, finite
from mpq.config import AnalysisSettings
from mpq.errors import UsageError
from mpq.formats.activations import DYNAMIC, STATIC
from mpq.models.running.comparison import Comparison, by_relative_error
from mpq.models.running.metrics import KLDivergence, Metric
from mpq.models.running.operations import operations
from mpq.models.running.reference import Reference
from mpq.records.activations import ActivationGroup, RoundedTensor
from mpq.records.measured_activations import MeasuredGroup

AFFORDABLE = 5e12  # floating-point operations of measuring all groups
_CHOOSING = 64  # samples that choose between ranges
_FEWEST = 16
_BARS = 64  # of a picture


def analyze_activations(context: Context, wanted: Sequence[str]) -> dict[str, Any]:
    """Measure every group under the `wanted` schemes that the table does not have yet; what to write at the end of the analysis.

    Args:
        context: of the analysis.
        wanted: "a8" and "a8d".
    """
    data, module = context.prepared.calibration, context.model.module
    calibrated, notes = calibrate(module, data.batches, context.table.layers, fixed_batch=bool(data.fixed_batch))
    context.notes += notes
    measure = _Measure(context, len(calibrated))
    work = [(each, scheme) for each in calibrated for scheme in wanted if scheme == STATIC or each.candidate.only_products]
    for done, (each, scheme) in enumerate(work, start=1):
        known = context.table.activations.get((each.candidate.name, scheme))
        if known is None or known.readers != each.candidate.readers:
            context.record([measure.group(each, scheme).to_line()])
        context.on_progress(done, len(work), f"activations of {each.candidate.name} {scheme}")
    names = [(each.candidate.name, scheme) for each, scheme in work]
    for pair in set(context.table.activations) - set(names):
        del context.table.activations[pair]
    return {"schemes": list(wanted), **measure.together({scheme: [pair for pair in names if pair[1] == scheme] for scheme in wanted})}


def refuse_activations(settings: AnalysisSettings, lacking: str) -> None:
    """Refuse to measure activations without what that needs.

    Raises:
        UsageError: if they are asked for.
    """
    if settings.activations:
        raise UsageError(f"--activations {settings.activations[0]} needs {lacking}")


class _Measure:
    """Errors of rounded tensors on the calibration samples."""

    def __init__(self, context: Context, groups: int) -> None:
        self._context, self._module = context, context.model.module
        data = context.prepared.calibration
        one = data.batches[0]
        each = operations(self._module, one) / one.size
        affordable = int(AFFORDABLE / max(1.0, each * max(1, groups)))
        self._data = data if data.fixed_batch else data.spread(min(data.samples, max(_FEWEST, affordable)))
        if self._data.samples < data.samples:
            some = f"{self._data.samples} of {data.samples} calibration samples, spread evenly over them"
            context.notes.append(f"activations: each group was measured on {some}")
        self._few = self._data if data.fixed_batch else self._data.spread(min(self._data.samples, _CHOOSING))
        self._reference = Reference(self._module, self._data, context.prepared.metric, offload=context.model.offload)
        self._choosing = Reference(self._module, self._few, _of_choosing(context.prepared.metric), offload=context.model.offload)

    def group(self, calibrated: Calibrated, scheme: str) -> MeasuredGroup:
        """One group under one scheme."""
        candidate = calibrated.candidate
        pairs = list(zip(candidate.tensors, calibrated.histograms, strict=True))
        methods: list[str] = []
        costs: list[tuple[float, float]] = []
        tensors: list[RoundedTensor] = []
        for readers, histogram in pairs:
            if scheme == DYNAMIC:
                tensors.append(RoundedTensor(readers))
                continue
            method, chosen = self._chosen(readers, ranges_of(histogram))
            methods.append(method)
            tensors.append(RoundedTensor(readers, chosen.scale, chosen.zero_point))
            clipping, rounding = (float(f"{value:.4g}") for value in parts_of_error(histogram, chosen))
            costs.append((clipping, rounding))
        made = ActivationGroup(scheme, tuple(tensors))
        errors = rounded_errors(self._reference, changes_of({candidate.name: made}))
        self._context.cost["activation_passes"] = self._context.cost.get("activation_passes", 0) + len(errors)
        seen = tuple((histogram.low, histogram.high) for _, histogram in pairs)
        size = self._context.prepared.calibration.batches[0].size if self._context.prepared.calibration.fixed_batch else 1
        counts = tuple(tuple(histogram.coarse(_BARS)) for _, histogram in pairs)
        work, errors_found = candidate.work // size, tuple(finite(errors))
        return MeasuredGroup(candidate.name, made, candidate.layers, work, errors_found, tuple(methods), seen, counts, tuple(costs))

    def together(self, pairs: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
        """By scheme: the error of all groups at once, and the sum of their single errors."""
        found = {}
        for scheme, names in pairs.items():
            groups = {name: self._context.table.activations[name, each].group for name, each in names}
            if groups:
                total = float(rounded_errors(self._reference, changes_of(groups)).nanmean())
                alone = sum(self._context.table.activations[pair].mean for pair in names)
                found[scheme] = {"groups": len(groups), "together": float(f"{total:.6g}"), "sum": float(f"{alone:.6g}")}
        return {"check": found}

    def _chosen(self, readers: Sequence[str], ranges: dict[str, Range]) -> tuple[str, Range]:
        """The range whose effect on the output is least; equal ranges are measured once."""
        distinct = {chosen: method for method, chosen in reversed(ranges.items())}
        if len(distinct) == 1:
            return next((method, chosen) for chosen, method in distinct.items())
        errors = {chosen: float(rounded_errors(self._choosing, dict.fromkeys(readers, _rounding(chosen))).mean()) for chosen in distinct}
        best = min(errors, key=lambda chosen: errors[chosen] if errors[chosen] == errors[chosen] else float("inf"))
        return distinct[best], best


def _of_choosing(metric: Metric) -> Metric:
    """What ranges are compared by: the squared error of logits where the metric is the divergence of one output."""
    part = metric.parts[0] if isinstance(metric, Comparison) and len(metric.parts) == 1 else None
    if part is None or part.metric != KLDivergence.name or part.probabilities or part.mask == "classes":
        return metric
    return by_relative_error(metric)


def _rounding(chosen: Range) -> Change:
    return partial(rounded, scale=chosen.scale, zero_point=chosen.zero_point)
