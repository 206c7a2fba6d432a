"""Weight: a first look from the relative squared errors of the weights.

Using a layer's relative weight error, |W - Q|^2 / |W|^2, assumes that every layer passes the relative error of its weights on in the same
way. It shows which formats are coarse, not which layers the model depends on. It is not in the unit of the metric, and usually far larger.
So it is multiplied by one factor: the geometric mean of measured error over weight error on a few layers. A note says how much the
individual factors vary. Without data there is no metric, and the weight errors are not scaled (`analyze/without_data.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from mpq.analyze.methods.base import Context, Method, Progress
from mpq.errors import ModelError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.ranks import Alone, Ranks, float_bytes
from mpq.models.running.reference import Reference
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity

_PAIRS = 8
_SAMPLES = 32
_PROBE = parse_scheme("int4")


class WeightOnly(Method):
    """Relative weight errors, scaled to the unit of the metric by one measured factor."""

    name = "weight"

    def run(self, context: Context) -> None:
        """Fill in the missing values of the table."""
        factor = _factor(context) if context.table.missing else 1.0
        weigh(
            context.table, context.variants, factor, lambda line: context.record([line]), context.on_progress, context.part, context.ranks
        )


def weigh(
    table: Sensitivity,
    variants: Variants,
    factor: float,
    record: Callable[[dict[str, Any]], None],
    on_progress: Progress,
    part: Collection[str] | None = None,
    ranks: Ranks | None = None,
) -> None:
    """Fill in the missing values of the table, or of a part of its layers, with weight errors times `factor`, to six digits."""
    missing = [(layer, scheme) for layer, scheme in table.missing if part is None or layer.name in part]
    errors = (ranks or Alone()).each(len(missing), lambda unit: weight_error(variants, *missing[unit]), pack=float_bytes, unpack=float)
    for done, ((layer, scheme), found) in enumerate(zip(missing, errors, strict=True), start=1):
        error = float(f"{factor * found:.6g}")
        record({"layer": layer.name, "scheme": str(scheme), "first": 0, "errors": [error]})
        on_progress(done, len(missing), f"{layer.name} {scheme}")


def weight_error(variants: Variants, layer: Layer, scheme: Scheme) -> float:
    """|W - Q|^2 / |W|^2."""
    weight = tensor_of(variants.module, layer.parameters[0]).detach().double()
    changed = variants.weight(layer.name, scheme).double()
    return float((changed - weight).square().sum() / weight.square().sum().clamp(min=1e-300))


def _factor(context: Context) -> float:
    """The factor for weight errors: the same for all layers, so a resumed analysis finds the same factor."""
    layers, metric = _spread_out(context.table.layers), context.prepared.metric
    reference = Reference(context.model.module, context.prepared.first.spread(_SAMPLES), metric, offload=context.model.offload)
    ratios = []
    for layer in layers:
        measured = float(reference.errors(context.variants.weights({layer.name: _PROBE})).mean())
        own = weight_error(context.variants, layer, _PROBE)
        if own > 0 and measured > 0 and math.isfinite(measured):
            ratios.append(math.log(measured / own))
    context.cost["forward_passes"] = reference.forwards
    if not ratios:
        raise ModelError(
            f"no change of a weight reaches the outputs, so weight errors cannot be scaled to {metric.name}: use --method measure"
        )
    factor = math.exp(float(np.mean(ratios)))
    spread = math.exp(float(np.std(ratios)))
    context.notes.append(
        f"method weight: weight errors times {factor:.3g} stand for {metric.name}; measured on {len(ratios)} "
        f"layer{'s' if len(ratios) > 1 else ''} at {_PROBE}, this factor varies by {spread:.2g} times from layer to layer"
    )
    return float(f"{factor:.6g}")


def _spread_out(layers: Sequence[Layer]) -> list[Layer]:
    """A few layers, evenly spaced from the first to the last."""
    places = np.linspace(0, len(layers) - 1, min(_PAIRS, len(layers))).round().astype(int)
    return [layers[place] for place in dict.fromkeys(places.tolist())]
