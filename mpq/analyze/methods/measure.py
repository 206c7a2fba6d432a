"""Measure: one layer is quantized with one scheme, everything else stays unquantized, and the error at the output is measured.

The work goes batch by batch. So computation that the changed layer cannot affect runs once per batch and is replayed
(`models/running/replay`), and samples are spent where they matter: a pair with a negligible error (`evidence/negligible.py`) gets no more
batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from mpq.analyze.methods.base import Context, Method, finite
from mpq.evidence.negligible import negligible
from mpq.formats.scheme import Scheme
from mpq.models.running.reference import Reference
from mpq.models.running.replay.run import Replay
from mpq.records.layer import Layer


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
            if pairs and context.part is None:
                known = negligible(context.table, pairs, first, data.samples)
                total -= len(known) * (len(starts) - index)
                pairs = [pair for pair in pairs if pair not in known]
            for records in context.ranks.each(*_work(context, replay, index, first, pairs)):
                for record in records:
                    context.record([record])
                    done += 1
                    context.on_progress(done, total, f"{record['layer']} {record['scheme']}")
        replay.clear()
        context.notes += [replay.given_up] if replay.given_up else []
        context.cost |= replay.cost

    @staticmethod
    def _open(context: Context, first: int, size: int) -> list[tuple[Layer, Scheme]]:
        """The pairs that lack values for some of `size` samples from `first` on, but none before: negligible pairs stay negligible."""
        table, end = context.table, first + size
        return [
            (layer, s) for layer in context.layers for s in table.header.candidates[layer.name] if first <= table.count(layer.name, s) < end
        ]


def _work(
    context: Context, replay: Replay, index: int, first: int, pairs: Sequence[tuple[Layer, Scheme]]
) -> tuple[int, Callable[[int], list[dict[str, Any]]]]:
    """The number of units of one batch, and what does one: a pair, or all pairs of a layer where ranks share them."""
    units = (
        [[pair] for pair in pairs] if context.ranks.size == 1 else [list(group) for _, group in groupby(pairs, lambda pair: pair[0].name)]
    )
    recorded = False

    def measured(unit: int) -> list[dict[str, Any]]:
        nonlocal recorded
        if not recorded:
            replay.record(index)
            recorded = True
        records = []
        for layer, scheme in units[unit]:
            known = context.table.count(layer.name, scheme)  # more than `first` if an analysis of other batches was killed
            errors = replay.errors(index, layer, context.variants.weights({layer.name: scheme}))[known - first :]
            records.append({"layer": layer.name, "scheme": str(scheme), "first": known, "errors": finite(errors)})
        return records

    return len(units), measured


def _schemes(pairs: Sequence[tuple[Layer, Scheme]]) -> dict[str, list[Scheme]]:
    """The schemes of pairs by layer name, in their order."""
    found: dict[str, list[Scheme]] = {}
    for layer, scheme in pairs:
        found.setdefault(layer.name, []).append(scheme)
    return found
