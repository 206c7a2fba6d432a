"""Layers whose effect gradients show only in part, found by measuring each once where the forward pass cuts the way of a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mpq.analyze.methods.base import Context
from mpq.formats.scheme import Scheme
from mpq.gradients.cut_paths import cut_paths
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer

_SAMPLES = 8
_FACTOR = 3.0  # an error this many times what gradients say is not noise


def misjudged(context: Context, errors_of: Callable[[int], Mapping[tuple[str, Scheme], float]]) -> list[str]:
    """Names of layers that gradients reach but whose measured error is over three times what these say, on the first samples.

    Where no gradient is cut, nothing is measured and no layer is named. The answer depends on the model and the data alone, so an
    analysis that resumes gets the same.

    Args:
        context: of the analysis; its table is not read.
        errors_of: gives the errors by gradients, by layer and scheme, of so many first samples; pairs without a gradient may be missing.
    """
    layers, data = context.table.layers, context.prepared.calibration.first(_SAMPLES)
    if not cut_paths(context.model.module, layers, data.batches[0]):
        return []
    reference = Reference(context.model.module, data, context.prepared.metric, offload=context.model.offload)
    expected = errors_of(data.samples)
    return [layer.name for layer in layers if _differs(context, reference, expected, layer)]


def _differs(context: Context, reference: Reference, expected: Mapping[tuple[str, Scheme], float], layer: Layer) -> bool:
    scheme = _coarsest(layer, context.table.header.candidates[layer.name])
    measured = float(reference.errors(context.variants.weights({layer.name: scheme})).mean())
    known = expected.get((layer.name, scheme), 0.0)
    return 0 < _FACTOR * known < measured


def _coarsest(layer: Layer, candidates: Sequence[Scheme]) -> Scheme:
    return min(candidates, key=lambda scheme: scheme.stored_bits(layer.matrix))
