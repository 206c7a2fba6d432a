"""One pass over calibration data: a histogram of every tensor that may be an integer, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from mpq.activations.groups import Candidate, candidates
from mpq.activations.histogram import Histogram
from mpq.activations.rounding import changed
from mpq.activations.trace import Trace, trace
from mpq.data.batch import Batch
from mpq.errors import DataError, MismatchError
from mpq.models.running.forward import call
from mpq.records.layer import Layer

_OUTLIERS = 16.0  # times the 99.9th percentile
_MOST = 0.999


@dataclass(frozen=True)
class Calibrated:
    """A group with the histograms of its tensors, in order."""

    candidate: Candidate
    histograms: tuple[Histogram, ...]


def calibrate(
    module: nn.Module, batches: Sequence[Batch], layers: Sequence[Layer], *, fixed_batch: bool = False
) -> tuple[list[Calibrated], list[str]]:
    """The groups that can be integers, and what to tell of tensors: those left out, and outliers.

    Args:
        module: the model; unchanged.
        batches: calibration samples.
        layers: the searched layers.
        fixed_batch: whether the model takes only batches of this size.
    """
    found = candidates(traced(module, batches, layers, whole=fixed_batch))
    histograms = {tensor: Histogram() for candidate in found for tensor in candidate.tensors}
    by_reader = {reader: histogram for tensor, histogram in histograms.items() for reader in tensor}
    unread = _observe(module, batches, by_reader)
    notes = [f"activations: {unread}"] if unread else []
    kept: list[Calibrated] = []
    for candidate in found if not unread else ():
        own = tuple(histograms[tensor] for tensor in candidate.tensors)
        reason = next((told for each in own if (told := _unusable(each))), None)
        if reason is None:
            kept.append(Calibrated(candidate, own))
            notes += [f"activations of {candidate.name}: {told}" for each in own if (told := _outliers(each))]
        else:
            notes.append(f"activations of {candidate.name} stay in floating point: {reason}")
    return kept, notes


def traced(module: nn.Module, batches: Sequence[Batch], layers: Sequence[Layer], *, whole: bool) -> Trace:
    """The trace of one sample; of a whole batch if so wanted, or where the model takes no single one."""
    batch = batches[0]
    if not whole and not batch.whole:
        try:
            return trace(module, batch.select([0]), layers)
        except DataError:
            pass
    return trace(module, batch, layers)


def _observe(module: nn.Module, batches: Iterable[Batch], histograms: dict[str, Histogram]) -> str | None:
    """Fill the histograms; why that is not possible, if it is not."""
    seen: set[tuple[int, int, int]] = set()

    def add(histogram: Histogram, tensor: Tensor) -> Tensor:
        key = (id(histogram), tensor.data_ptr(), tensor.numel())
        if key not in seen:  # the same tensor read again
            histogram.add(tensor)
            seen.add(key)
        return tensor

    try:
        with changed(module, {reader: partial(add, histogram) for reader, histogram in histograms.items()}):
            for batch in batches:
                seen.clear()
                call(module, batch)
    except MismatchError:
        return "the model runs other operators from batch to batch, so its tensors cannot be told apart and stay in floating point"
    return None


def _unusable(histogram: Histogram) -> str | None:
    if histogram.not_finite:
        return f"{histogram.not_finite:,} values are NaN or infinite on the calibration data"
    if not histogram.values:
        return "the calibration data never reaches them"
    if histogram.is_constant:
        return f"a tensor is {histogram.low:g} everywhere on the calibration data"
    return None


def _outliers(histogram: Histogram) -> str | None:
    largest = max(-histogram.low, histogram.high)
    usual = max(-histogram.quantile(1 - _MOST), histogram.quantile(_MOST))
    if usual > 0 and largest > _OUTLIERS * usual:
        return f"the largest value is {largest / usual:.0f} times the 99.9th percentile, so few of the 256 levels are left for the others"
    return None
