"""Weight: a data-free first look, by the relative squared error of the weights.

A layer's figure is its relative weight error, |W - Q|^2 / |W|^2, as if every layer passed on the relative error of its weights alike.
It says which formats are coarse, not which layers the model depends on: good for a first look, and for models without data.
"""

from __future__ import annotations

from mpq.analyze.methods.base import Context, Method
from mpq.models.running.swap import tensor_of


class WeightOnly(Method):
    """Relative weight errors; no forward pass."""

    name = "weight"

    def run(self, context: Context) -> None:
        """Fill what the table misses."""
        missing = context.table.missing
        for done, (layer, scheme) in enumerate(missing, start=1):
            weight = tensor_of(context.model.module, layer.parameters[0]).detach().double()
            changed = context.variants.weight(layer.name, scheme).double()
            share = float((changed - weight).square().sum() / weight.square().sum().clamp(min=1e-300))
            context.record([{"layer": layer.name, "scheme": str(scheme), "first": 0, "errors": [float(f"{share:.6g}")]}])
            context.on_progress(done, len(missing), f"{layer.name} {scheme}")
