"""How far the layers of a plan are from the theoretical limit.

The output error of a layer, on the inputs that the analysis collected, is set against the least rate at which any code could reach it
(`tensors/rate_limit.py`). The weights are as quantized by the plan's quantizer, without recovery. Rows that are one common row count
once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mpq.activations.equalized import equalized
from mpq.apply.plan_layers import plan_layers
from mpq.apply.run import Progress, split_of
from mpq.calibration.input_moments import CalibrationStatistics
from mpq.data.dataset import Data
from mpq.errors import UsageError
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.known import opened, scope_for
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.rate_limits import LayerLimit
from mpq.tensors.common_rows import merged, stored_places
from mpq.tensors.hessian import output_errors
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.rate_limit import least_bits


def rate_limits(
    model: nn.Module | LoadedModel,
    plan: Plan,
    data: Data | Iterable[Any],
    *,
    cache: Path | str | None = None,
    on_progress: Progress | None = None,
) -> list[LayerLimit]:
    """The limit of each layer of a plan, in the plan's order.

    Args:
        model: the model that the plan was made for.
        plan: the plan.
        data: all samples of the analysis, exactly as given to it.
        cache: folder where the analysis kept codes and input statistics; None computes them again.
        on_progress: called after each layer.

    Raises:
        UsageError: if the plan was made without data.
        MismatchError: if the plan belongs to a different model or to different data.
    """
    if not plan.data:
        raise UsageError(
            "the plan was made without calibration data, which tells the inputs of each layer: analyze again with --calib FILE"
        )
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    layers, quantizer = plan_layers(plan, loaded), quantizer_named(plan.quantizer)
    split = split_of(plan, loaded, data)
    known = scope_for(opened(cache), loaded.sha256, split.first, plan.equalization)
    statistics = CalibrationStatistics(loaded.module, layers, split.first, known=known)
    used = statistics if quantizer.needs_statistics else None
    variants = Variants(loaded.module, layers, quantizer, statistics=used, cache_bytes=0, codes=known)
    found = []
    with equalized(loaded.module, plan.equalization):
        for layer in layers:
            moments = statistics.get(layer.name)
            reason = statistics.fallbacks.get(layer.name, "its inputs are not known")
            found.append(_limit(layer, plan, variants, moments, reason))
            if on_progress is not None:
                on_progress(len(found), len(layers), layer.name)
    return found


def _limit(layer: Layer, plan: Plan, variants: Variants, moments: Statistics | None, reason: str) -> LayerLimit:
    scheme = plan.layers[layer.name]
    bits = scheme.stored_bits(layer.matrix) / layer.weights
    if moments is None:
        return LayerLimit(layer.name, layer.weights, bits, None, reason)
    columns = layer.matrix[1]
    if moments.count < columns:
        return LayerLimit(layer.name, layer.weights, bits, None, f"only {moments.count} input vectors for {columns} columns")
    matrix, common = variants.matrix(layer.name), variants.common(layer.name)
    quantized = variants.quantized(layer.name, scheme).dequantize().to(matrix.device)
    if common is not None:  # counts as the one row that it is
        matrix, quantized = merged(matrix, common), quantized[stored_places(common).to(matrix.device)]
    least = _least(matrix, quantized, moments)
    reason = "quantization does not change it" if least is None else ""
    return LayerLimit(layer.name, layer.weights, bits, None if least is None else least * matrix.numel() / layer.weights, reason)


def _least(matrix: Tensor, quantized: Tensor, moments: Statistics) -> float | None:
    """The least rate for the output error of a quantized matrix; None if it has none."""
    hessian = moments.hessian.to(matrix.device)
    error = float(output_errors(quantized - matrix, hessian).sum())
    return least_bits(error, matrix.square().mean(1), hessian) if error > 0 else None
