"""Slopes of a quantized model's error: what every scheme of every layer would change, from one forward and a few backward passes.

Around the reference the error has no slope, and a table of single layers is all there is to know without products. Around a plan P it
has one: for the change D of one layer's weight, error(P + D) = error(P) + g . D + 1/2 D . H D + ..., and the gradient g at P holds
the interaction of D with the current errors of all other layers. H is the metric's curvature at P's outputs (Gauss-Newton;
Schraudolph 2002), and D . H D by random projections, as in `gradients/projections.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from mpq.data.dataset import Batch
from mpq.errors import ModelError, MpqError
from mpq.formats.scheme import Scheme
from mpq.gradients.projections import Receive, gradients_of
from mpq.gradients.weight_changes import Changes
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.forward import forward
from mpq.models.running.metrics import Prepared
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer
from mpq.records.slopes import Pair, Slopes
from mpq.shown import first_line

DRAWS = 1


def slopes_at(
    reference: Reference, variants: Variants, schemes: Mapping[str, Scheme], candidates: Mapping[str, Sequence[Scheme]]
) -> Slopes:
    """What each candidate would change in the error of a plan.

    Args:
        reference: the samples and the metric; its module is unchanged afterwards.
        variants: the weights under schemes.
        schemes: the plan, by layer name.
        candidates: by layer name.

    Raises:
        ModelError: if the model or the metric gives no gradients; the message says why.
    """
    layers = [variants.layers[name] for name in schemes]
    changes = Changes(variants, candidates, lambda name: variants.weight(name, schemes[name]))
    changes.fill()
    found = _Figures(changes, reference.data.samples // (reference.data.fixed_batch or 1))
    try:
        with closing(reference.placed(variants.weights(schemes))) as batches:
            for index, whole in batches:
                for sample, prepared in reference.singles(index, whole):
                    _add(found, reference, layers, sample, prepared)
    except MpqError:
        raise
    except RuntimeError as error:  # any error of autograd for a model that it cannot differentiate
        raise ModelError(f"the model gives no gradients: {first_line(error)}") from error
    if not found.first:
        raise ModelError("the model gives no gradients: none reaches a searched layer")
    return Slopes(_arrays(found.first), _arrays(found.second), cost=1 + 2 * (1 + DRAWS))


class _Figures:
    """Values by layer and scheme, one per sample and draw; zero for a sample that does not reach the layer."""

    def __init__(self, changes: Changes, samples: int) -> None:
        self.first: dict[Pair, list[float]] = {}
        self.second: dict[Pair, list[float]] = {}
        self.seen = 0
        self._changes, self._samples = changes, samples

    def take_first(self, layer: Layer, gradient: Tensor) -> None:
        """Add the gradient of the current sample's error."""
        for pair, product in self._products(layer, gradient):
            self.first.setdefault(pair, [0.0] * self._samples)[self.seen] = product

    def take_second(self, draw: int) -> Receive:
        """A callback that adds the gradient of a random projection of its outputs."""

        def take(layer: Layer, gradient: Tensor) -> None:
            for pair, product in self._products(layer, gradient):
                self.second.setdefault(pair, [0.0] * self._samples * DRAWS)[self.seen * DRAWS + draw] = product * product

        return take

    def _products(self, layer: Layer, gradient: Tensor) -> Iterator[tuple[Pair, float]]:
        for scheme, product in zip(self._changes.schemes[layer.name], self._changes.products(layer, gradient), strict=True):
            yield (layer.name, scheme), product


def _add(found: _Figures, reference: Reference, layers: Sequence[Layer], sample: Batch, prepared: Prepared) -> None:
    """Add the values of one sample; the plan's weights are in place."""
    with gradients_of(reference.module, layers) as collect, torch.enable_grad():
        outputs = forward(reference.module, sample, gradients=True)
        error = reference.metric.errors(prepared, outputs).mean()
        if not error.requires_grad:
            raise ModelError("the model gives no gradients: its outputs do not depend on its parameters")
        with collect(found.take_first):
            error.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        generator = torch.Generator().manual_seed(found.seen)
        for draw in range(DRAWS):
            scalar = reference.metric.project(prepared, outputs, generator)
            with collect(found.take_second(draw)):
                scalar.backward(retain_graph=draw + 1 < DRAWS)  # type: ignore[no-untyped-call]
    found.seen += 1


def _arrays(found: Mapping[Pair, list[float]]) -> dict[Pair, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return {pair: np.array(figures, dtype=np.float64) for pair, figures in found.items()}
