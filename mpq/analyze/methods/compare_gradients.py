"""Finds layers whose gradients misjudge their effect, by measuring each layer once if the forward pass blocks gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpq.analyze.methods.base import Context
from mpq.formats.scheme import Scheme
from mpq.gradients.cut_paths import cut_paths
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer

_SAMPLES = 32
_FACTOR = 3.0  # an error this many times the gradient estimate, or the other way round, is not noise


def misjudged(context: Context, errors_of: Callable[[int], Mapping[tuple[str, Scheme], float]]) -> list[str]:
    """Names of layers that gradients reach but whose measured error is over three times the gradient estimate, or under a third of it.

    Gradients overstate large changes, so an error under a third of the estimate must be so for the finest quantized scheme too. If no
    gradient is blocked, nothing is measured and the result is empty. The result depends only on the model and the data, so a resumed
    analysis gets the same one.

    Args:
        context: the analysis; its table is not read.
        errors_of: gives the gradient estimates of the errors on n samples spread over the data, by layer and scheme; pairs without a
            gradient may be missing.
    """
    layers, data = context.layers, context.prepared.calibration.spread(_SAMPLES)
    if not cut_paths(context.model.module, layers, data.first(1).batches[0]):
        return []
    reference = Reference(context.model.module, data, context.prepared.metric, offload=context.model.offload)
    expected = errors_of(data.samples)
    return [layer.name for layer in layers if _differs(context, reference, expected, layer)]


def _differs(context: Context, reference: Reference, expected: Mapping[tuple[str, Scheme], float], layer: Layer) -> bool:
    schemes = sorted(context.table.header.candidates[layer.name], key=lambda scheme: scheme.stored_bits(layer.matrix))
    known, measured = _both(context, reference, expected, layer, schemes[0])
    if known == 0 or measured > _FACTOR * known:
        return known > 0
    finest = [scheme for scheme in schemes if not scheme.is_float][-1:]
    pairs = ((known, measured), *(_both(context, reference, expected, layer, scheme) for scheme in finest if _FACTOR * measured < known))
    return all(_FACTOR * found < by_gradients for by_gradients, found in pairs)


def _both(
    context: Context, reference: Reference, expected: Mapping[tuple[str, Scheme], float], layer: Layer, scheme: Scheme
) -> tuple[float, float]:
    """The gradient estimate of the error (zero if there is none), and the measured error."""
    measured = float(reference.errors(context.variants.weights({layer.name: scheme})).mean())
    return expected.get((layer.name, scheme), 0.0), measured
