"""Measure: one layer is quantized with one scheme, everything else stays unquantized, and the error at the output is measured.

The work goes batch by batch. So computation that the changed layer cannot affect runs once per batch and is replayed
(`models/running/replay`), and samples are spent where they matter: after the first quarter of the samples, a pair with a negligible error
gets no more batches. An error is negligible if its mean plus two standard errors is below `NEGLIGIBLE` times the median over layers of
their largest error.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from mpq.analyze.methods.base import Context, Method, finite
from mpq.formats.scheme import Scheme
from mpq.models.running.reference import Reference
from mpq.models.running.replay.run import Replay
from mpq.records.layer import Layer
from mpq.records.sensitivity import standard_error

NEGLIGIBLE = 1e-3
_FIRST_SHARE = 0.25
_FEWEST = 8


class Measure(Method):
    """Exact single-layer errors."""

    name = "measure"

    def run(self, context: Context) -> None:
        """Fill in the missing values of the table, batch by batch."""
        data = context.prepared.calibration
        context.variants.fill(_schemes(self._open(context, 0, data.samples)), context.on_progress)
        reference = Reference(context.model.module, data, context.prepared.metric, offload=context.model.offload)
        replay = Replay(context.model.module, reference)
        done = 0
        starts = [sum(batch.size for batch in data.batches[:index]) for index in range(len(data.batches))]
        total = sum(len(self._open(context, 0, start + batch.size)) for start, batch in zip(starts, data.batches, strict=True))
        for index, batch in enumerate(data.batches):
            first = starts[index]
            pairs = self._open(context, first, batch.size)
            if pairs and first >= max(_FEWEST, _FIRST_SHARE * data.samples):
                limit = NEGLIGIBLE * _scale(context, first)
                negligible = {pair for pair in pairs if _below(limit, context, *pair)}
                total -= len(negligible) * (len(starts) - index)
                pairs = [pair for pair in pairs if pair not in negligible]
            if pairs:
                replay.record(index)
            for layer, scheme in pairs:
                known = context.table.count(layer.name, scheme)  # more than `first` if an analysis with other batches was killed
                errors = replay.errors(index, layer, context.variants.weights({layer.name: scheme}))[known - first :]
                context.record([{"layer": layer.name, "scheme": str(scheme), "first": known, "errors": finite(errors)}])
                done += 1
                context.on_progress(done, total, f"{layer.name} {scheme}")
        replay.clear()
        context.notes += [replay.given_up] if replay.given_up else []
        context.cost |= replay.cost

    @staticmethod
    def _open(context: Context, first: int, size: int) -> list[tuple[Layer, Scheme]]:
        """The pairs that lack values for some of `size` samples from `first` on, but none before: negligible pairs stay negligible."""
        table, end = context.table, first + size
        return [
            (layer, s) for layer in table.layers for s in table.header.candidates[layer.name] if first <= table.count(layer.name, s) < end
        ]


def _schemes(pairs: Sequence[tuple[Layer, Scheme]]) -> dict[str, list[Scheme]]:
    """The schemes of pairs by layer name, in their order."""
    found: dict[str, list[Scheme]] = {}
    for layer, scheme in pairs:
        found.setdefault(layer.name, []).append(scheme)
    return found


def _scale(context: Context, samples: int) -> float:
    """The median over layers of their largest error on the first `samples`, even if a killed analysis has more of them."""
    table = context.table
    means = [[float(table.errors[layer.name, s][:samples].mean()) for s in table.header.candidates[layer.name]] for layer in table.layers]
    largest = [max(filter(math.isfinite, values), default=0.0) for values in means]
    return statistics.median(largest)


def _below(limit: float, context: Context, layer: Layer, scheme: Scheme) -> bool:
    """Whether a pair's error is known to be below `limit`."""
    errors = context.table.errors.get((layer.name, scheme))
    if errors is None or len(errors) < _FEWEST or not bool(np.isfinite(errors).all()):
        return False
    return float(errors.mean()) + 2 * standard_error(errors) < limit
