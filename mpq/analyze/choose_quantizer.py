"""Choosing the quantizer: the best of a few, measured on this model.

Every contender quantizes the whole model once, each layer with its candidate nearest to four bits (an integer one if possible), using only
the calibration samples. The error is measured on the held-out samples. A contender that needs statistics replaces a simpler one only if a
paired test shows a gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mpq.calibration.input_moments import statistics_for
from mpq.data.dataset import Data
from mpq.evidence.paired_test import compare
from mpq.formats.scheme import Scheme
from mpq.models.memory.store import Scope
from mpq.models.running.fake_quantized import Progress, Variants
from mpq.models.running.metrics import Metric
from mpq.models.running.quantize_processes import workers_of
from mpq.models.running.reference import Reference
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import SensitivityHeader
from mpq.tensors.quantizers.registry import quantizer_named

CONTENDERS = ("mse", "descent")  # simplest first
_TRIAL_BITS = 4


def choose_quantizer(
    name: str,
    model: LoadedModel,
    layers: Sequence[Layer],
    candidates: Mapping[str, Iterable[Scheme]],
    *,
    calibration: Data,
    held_out: Data,
    metric: Metric,
    data_free: bool,
    known: Scope | None = None,
    workers: str = "1",
    on_progress: Progress = lambda *_: None,
) -> tuple[str, str]:
    """The quantizer's name and the reason for it; "auto" measures the contenders, unless the analysis is `data_free`.

    Codes and statistics of `calibration` are kept in `known`, so that the analysis need not compute them again. `workers` is the number of
    processes that quantize, or "auto".
    """
    if name != "auto":
        return quantizer_named(name).name, f"quantizer {name}: as asked"
    if data_free:
        return CONTENDERS[0], f"quantizer {CONTENDERS[0]}: the best that needs no data"
    plan = {layer.name: _nearest(candidates[layer.name]) for layer in layers}
    plan = {layer: scheme for layer, scheme in plan.items() if not scheme.is_float}
    if not plan:
        return CONTENDERS[0], f"quantizer {CONTENDERS[0]}: all candidates are floating point"
    reference = Reference(model.module, held_out, metric)
    processes = workers_of(workers, sum(layer.weights for layer in layers if layer.name in plan))
    errors = {}
    for one in CONTENDERS:
        quantizer = quantizer_named(one)
        statistics = statistics_for(quantizer, model.module, layers, calibration, known=known)
        variants = Variants(model.module, layers, quantizer, statistics=statistics, codes=known, workers=processes)
        errors[one] = _errors(variants, plan, reference, on_progress)
    best = CONTENDERS[0]
    for contender in CONTENDERS[1:]:
        if compare(errors[contender], errors[best]).better:
            best = contender
    figures = ", ".join(f"{one} {float(found.mean()):.4g}" for one, found in errors.items())
    return best, f"quantizer {best}: {metric.name} on held-out samples near {_TRIAL_BITS} bits: {figures}"


def recorded_choice(
    earlier: SensitivityHeader | None, *, model: LoadedModel, data: Data, parts: Mapping[str, Any]
) -> tuple[str, str] | None:
    """The quantizer that an earlier analysis of the same model and data chose, and its reason; None if there is none.

    Args:
        earlier: its header.
        model: the model of this analysis.
        data: all samples of this analysis.
        parts: their `parts_of`.
    """
    known = (data.sha256, parts.get("grown_from"))
    if earlier is None or earlier.model.get("sha256") != model.sha256 or earlier.data.get("sha256") not in known:
        return None
    name = str(earlier.settings["quantizer"])
    reason = next((note for note in earlier.notes if note.startswith(f"quantizer {name}: ")), None)
    return None if reason is None else (name, reason)


def _nearest(schemes: Iterable[Scheme]) -> Scheme:
    return min(schemes, key=lambda scheme: (scheme.is_float, abs(scheme.rate - _TRIAL_BITS), not scheme.is_integer, str(scheme)))


def _errors(
    variants: Variants, plan: Mapping[str, Scheme], reference: Reference, on_progress: Progress
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    variants.fill({layer: [scheme] for layer, scheme in plan.items()}, on_progress)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = reference.errors(variants.weights(plan)).numpy()
    return found
