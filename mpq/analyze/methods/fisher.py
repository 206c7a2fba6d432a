"""Fisher: all layers and schemes from a few backward passes per sample, by the second-order expansion of the metric.

The mathematics is in `gradients/projections.py`. Each draw gives one signed value v per (layer, scheme), with E[v^2] the error of the pair
and E[(sum of v)^2] that of a whole plan. But one v^2 has a standard deviation of 1.4 times its mean, so the error of a pair is estimated
differently: v is a sum of terms, one from each row of the weight's matrix, and rows are rounded independently of each other, so products of
terms of different rows average to zero over the many ways to round. Apart from these products, the sum of the squared row terms has the
same mean as v^2, and it averages the noise over many rows. It keeps the interactions of errors within a row, which quantizers shape (in
GPTQ, later columns compensate for earlier ones). On stories15m, 16 windows of 256 tokens, the standard error of a value falls from 25% to
5%. If only a few directions of the output matter, the products of rows do not vanish: `_blend` estimates from all values together which
share of the errors should come from v^2.

The cost is one forward and `DRAWS` backward passes per sample, however many layers and schemes there are, plus an inner product for each
pair. The samples of a batch are processed together where possible (`gradients/per_sample.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from mpq.analyze.methods.alike import Products, alike
from mpq.analyze.methods.base import Context, Method, finite
from mpq.analyze.methods.compare_gradients import misjudged
from mpq.analyze.methods.measure import Measure
from mpq.data.dataset import Batch, Data
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.gradients.per_sample import NotSamplewiseError, project_batch, row_products
from mpq.gradients.projections import project
from mpq.gradients.recomputation import NotRepeatableError
from mpq.gradients.weight_changes import Changes
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.shown import listed
from mpq.tensors.matrix import to_matrix

DRAWS = 2
_TOLERANCE = 1e-3  # of the values of a sample in a batch and alone, but at least `_ROUNDINGS` of the weights' dtype
_ROUNDINGS = 16
_WHOLE = "a block gives a different output on a second run, so no block is recomputed, and backward passes take their full memory"


class Fisher(Method):
    """Second-order sensitivities; all missing pairs are computed together."""

    name = "fisher"

    def run(self, context: Context) -> None:
        """Fill in the missing values of the table."""
        data = context.prepared.calibration
        hidden = misjudged(context, lambda samples: _errors(context, samples))
        searched = [layer for layer in context.layers if layer.name not in hidden]
        wanted = {layer.name: list(context.table.header.candidates[layer.name]) for layer in searched}
        begin = min((context.table.count(name, scheme) for name, schemes in wanted.items() for scheme in schemes), default=0)
        layers = [layer for layer in searched if any(context.table.count(layer.name, s) < data.samples for s in wanted[layer.name])]
        context.variants.fill({layer.name: wanted[layer.name] for layer in layers}, context.on_progress)
        found = _Products(context, layers)
        done = begin
        reached = {pair for pair, errors in context.table.errors.items() if errors.any()}
        units = list(_units(data, begin))
        results = context.ranks.each(len(units), lambda unit: found.of(*units[unit][::-1]), pack=_packed, unpack=_unpacked)
        for (position, batch), products in zip(units, results, strict=True):
            reached |= {pair for pair, figures in products.items() if bool(figures.any())}
            context.record(_records(products, wanted, position, batch.size, context, reached))
            done += batch.size
            context.on_progress(done - begin, data.samples - begin, "samples")
        context.cost |= found.cost
        _measure_the_others(context, reached, hidden)
        if context.part is not None:
            return  # the share is that of all pairs
        share = _blend(context.table, context.prepared.calibration.fixed_batch or 1)
        if context.table.blend != (share, DRAWS):  # else an earlier, killed analysis has written the line already
            context.record([{"blend": share, "draws": DRAWS}])


def _blend(table: Sensitivity, repeats: int) -> float:
    """The share of v^2 in the errors, next to the rows' squares, estimated from the noise between draws.

    The two differ by the products of different rows, which are real, and by noise. Over all pairs, the mean square of the difference,
    relative to the error, is the sum of both; the draws of a sample give the noise. The share is the part that is not noise.
    """
    differences, noises = [], []
    for key, products in table.products.items():
        squares, rows = np.square(products).reshape(-1, DRAWS), table.rows[key][::repeats]
        error = float(rows.mean())
        if error > 0 and math.isfinite(error):
            differences.append(((squares.mean() - error) / error) ** 2)
            noises.append(float(squares.var(1, ddof=1).sum()) / DRAWS / (len(squares) * error) ** 2)
    if not differences:
        return 0.0
    return round(max(0.0, 1 - float(np.mean(noises)) / max(1e-300, float(np.mean(differences)))), 4)


def _packed(products: Products) -> bytes:
    return save({f"{name} {scheme}": figures for (name, scheme), figures in products.items()})


def _unpacked(data: bytes) -> Products:
    found = {}
    for key, figures in load(data).items():
        name, _, scheme = key.rpartition(" ")
        found[name, parse_scheme(scheme)] = figures
    return found


class _Products:
    """Computes the signed values of batches: all samples of a batch together where that is known to be correct, else one by one.

    This is checked once, on one draw of the first two samples that share a batch.
    """

    def __init__(self, context: Context, layers: Sequence[Layer]) -> None:
        self._context, self._layers = context, layers
        weights = {layer.name: tensor_of(context.model.module, layer.parameters[0]) for layer in layers}
        candidates = {name: context.table.header.candidates[name] for name in weights}
        self._changes = Changes(context.variants, candidates, weights.__getitem__)
        self._together: bool | None = None
        self._blocks = context.blocks
        if context.prepared.calibration.fixed_batch or isinstance(context.model.module, torch.jit.ScriptModule):
            self._together = False
        self.cost = {"forward_passes": 0.0, "backward_passes": 0.0}

    def of(self, batch: Batch, position: int) -> Products:
        """The values of one batch, whose first sample is at `position`."""
        if self._context.prepared.calibration.fixed_batch:
            return self._alone(batch, position)
        found = self._batch(batch, position) if batch.size > 1 and self._may_be_together() else None
        if found is not None:
            return found
        rows = [self._alone(batch.select([index]), position + index) for index in range(batch.size)]
        zero = torch.zeros(1, DRAWS, 2, dtype=torch.float64)
        return {key: torch.cat([row.get(key, zero) for row in rows]) for key in dict.fromkeys(key for row in rows for key in row)}

    def _may_be_together(self) -> bool:
        if self._together is None:
            pair = next(batch for batch in self._context.prepared.calibration.batches if batch.size > 1).select([0, 1])
            found = self._batch(pair, 0, draws=1)
            alone = {} if found is None else self._alone(pair.select([1]), 1, draws=1)
            self._together = found is not None and alike(alone, {key: rows[1:] for key, rows in found.items()}, self._tolerance())
        return self._together

    def _tolerance(self) -> float:
        return max([_TOLERANCE, *(_ROUNDINGS * torch.finfo(getattr(torch, layer.dtype)).eps for layer in self._layers)])

    def _batch(self, batch: Batch, position: int, *, draws: int = DRAWS) -> Products | None:
        """All samples together; None where a weight is used in a way that does not allow it."""
        given = self._context.model.module, self._layers, batch, self._context.prepared.metric
        seeds = [self._seed(position + index) for index in range(batch.size)]

        def passes(found: Products) -> None:
            project_batch(
                *given,
                seeds=seeds,
                draws=draws,
                changes=self._changes.pieces,
                receive=lambda draw: partial(self._add, found, draw),
                blocks=self._blocks,
            )

        try:
            return self._run(passes, batch.size, draws)
        except NotSamplewiseError:
            self._together = False
            return None

    def _alone(self, sample: Batch, position: int, *, draws: int = DRAWS) -> Products:
        """One sample, or a batch that cannot be cut; then the values are for the batch's mean."""
        given = self._context.model.module, self._layers, sample, self._context.prepared.metric

        def passes(found: Products) -> None:
            def take(draw: int, layer: Layer, gradient: Tensor) -> None:
                matrix = to_matrix(gradient, layer.axes, layer.groups)[None]
                rows = torch.cat([row_products(matrix[:, own], piece) for own, piece in self._changes.pieces(layer)], -1)
                self._add(found, draw, layer, rows)

            project(*given, draws=draws, seed=self._seed(position), receive=lambda draw: partial(take, draw), blocks=self._blocks)

        return self._run(passes, sample.size, draws)

    def _add(self, found: Products, draw: int, layer: Layer, rows: Tensor) -> None:
        """Add the products of one draw and layer, [schemes, samples, rows]."""
        for scheme, each in zip(self._changes.schemes[layer.name], rows, strict=True):
            figures = found.setdefault((layer.name, scheme), torch.zeros(rows.shape[1], DRAWS, 2, dtype=torch.float64))
            figures[:, draw] = _figures(each)

    def _run(self, passes: Callable[[Products], None], samples: int, draws: int) -> Products:
        """What the passes find; if a block cannot run again, they keep from now on what the backward passes need."""
        found: Products = {}
        try:
            passes(found)
        except NotRepeatableError:
            self._blocks = ()
            self._context.notes.append(_WHOLE)
            found.clear()
            passes(found)
        self.cost["forward_passes"] += samples
        self.cost["backward_passes"] += samples * draws
        return found

    def _seed(self, position: int) -> int:
        return int(self._context.prepared.header.data["seed"]) * 1_000_003 + position


def _figures(rows: Tensor) -> Tensor:
    """From the products of each row, float32 [samples, rows]: their sum and the sum of their squares, [samples, 2]."""
    wide = rows.cpu().double()
    return torch.stack([wide.sum(-1), wide.square().sum(-1)], -1)


def _units(data: Data, begin: int) -> Iterator[tuple[int, Batch]]:
    """The part of each batch from sample `begin` on, with its position; batches that cannot be cut stay whole."""
    start = 0
    for batch in data.batches:
        skip = 0 if data.fixed_batch else min(batch.size, max(0, begin - start))
        if start + batch.size > begin:
            yield start + skip, batch.narrow(skip, batch.size - skip) if skip else batch
        start += batch.size


def _errors(context: Context, samples: int) -> dict[tuple[str, Scheme], float]:
    """The errors of all pairs that a gradient reaches, on some samples."""
    found = _Products(context, context.layers)
    sums: dict[tuple[str, Scheme], float] = {}
    start = 0
    for batch in context.prepared.calibration.spread(samples).batches:
        for pair, figures in found.of(batch, start).items():
            sums[pair] = sums.get(pair, 0.0) + float(figures[..., 1].mean(1).mean()) * batch.size
        start += batch.size
    return {pair: value / start for pair, value in sums.items()}


def _measure_the_others(context: Context, reached: set[tuple[str, Scheme]], hidden: Sequence[str]) -> None:
    """Measure the layers that no gradient reaches: a layer before an argmax or a detached tensor still affects the output."""
    blind = [
        layer.name
        for layer in context.layers
        if layer.name not in hidden and not any((layer.name, s) in reached for s in context.table.header.candidates[layer.name])
    ]
    if blind:
        context.notes.append(f"measured instead, because no gradient reaches them: {listed(blind, 5)}")
    if hidden:
        context.notes.append(f"measured instead, because gradients misjudge their effect: {listed(hidden, 5)}")
    if blind or hidden:
        Measure().run(context)


def _records(
    products: Products,
    wanted: Mapping[str, Sequence[Scheme]],
    first: int,
    size: int,
    context: Context,
    reached: set[tuple[str, Scheme]],
) -> list[dict[str, Any]]:
    """One record per pair for samples from `first` on; a sample that no gradient reached counts as zero error.

    Pairs that no gradient has reached yet are left out; once a pair is reached, earlier samples are added as zeros.
    """
    repeats = context.prepared.calibration.fixed_batch or 1
    zero = torch.zeros(size // repeats, DRAWS, 2, dtype=torch.float64)
    records = []
    for name, schemes in wanted.items():
        for scheme in schemes:
            if not any((name, other) in reached for other in schemes):
                continue
            known = context.table.count(name, scheme)
            skip = max(0, known - first)  # values from an earlier run
            missed = torch.zeros(max(0, first - known) // repeats, DRAWS, 2, dtype=torch.float64)
            figures = torch.cat([missed, products.get((name, scheme), zero)])
            errors = figures[..., 1].mean(1).repeat_interleave(repeats)
            if skip < len(errors):
                record = {
                    "layer": name,
                    "scheme": str(scheme),
                    "first": known,
                    "errors": finite(errors[skip:]),
                }
                records.append(record | {"products": finite(figures[skip // repeats :, :, 0].reshape(-1))})
    return records
