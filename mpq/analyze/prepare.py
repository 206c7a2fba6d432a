"""Decide, then do: everything an analysis will measure, settled and checked before the first measurement."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from mpq.analyze.candidates import candidates_for, expand
from mpq.analyze.choose_method import choose_method
from mpq.analyze.choose_quantizer import choose_quantizer, recorded_choice
from mpq.analyze.methods.weight import WeightOnly
from mpq.analyze.resume import parts_of
from mpq.analyze.task import Prepared
from mpq.config import AnalysisSettings
from mpq.data.dataset import Data
from mpq.errors import ModelError, PatternError
from mpq.models.layers.discover import Discovery, discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.fake_quantized import sixteen_bits, storable_candidates
from mpq.models.sources.loaded import LoadedModel
from mpq.patterns import select
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import SensitivityHeader
from mpq.tensors.quantizers.registry import quantizer_named


def prepare(
    model: LoadedModel,
    data: Data,
    settings: AnalysisSettings,
    *,
    path: str | None = None,
    reading: dict[str, object] | None = None,
    earlier: SensitivityHeader | None = None,
) -> Prepared:
    """Settle an analysis of `model`.

    Args:
        model: the unquantized model.
        data: all samples; they are split here.
        settings: the user's choices.
        path: how to find the model from the folder of the sensitivity file.
        reading: how the data was read (its source, number of samples, ...), to read it again for the search.
        earlier: what an analysis said that this one goes on with; its choice of a quantizer is kept and not measured again.

    Raises:
        ModelError: if the model has no weight to quantize, or none is left after targets and ignore.
        PatternError: if a pattern matches nothing.
        DataError: if the data does not fit the model or cannot be split.
        SchemeError: if a candidate is unknown.
    """
    wanted = expand(settings.candidates)
    if settings.quantizer != "auto":
        quantizer_named(settings.quantizer)  # refused before the model runs
    parts = parts_of(earlier, data)
    splitting = {"held_out": settings.held_out, "seed": settings.seed, **parts}
    split = data.split_as(splitting)
    metric, reasons = choose_comparison(model.module, split.first.batches, metric=settings.metric, outputs=settings.outputs)
    discovery = discover(model.module, split.calibration.batches)
    layers = chosen_layers(discovery, settings)
    candidates = {layer.name: candidates_for(layer, wanted, lambda one: sixteen_bits(model.module, one)) for layer in layers}
    candidates, too_large = storable_candidates(model.module, layers, candidates)
    pairs, offloaded = sum(map(len, candidates.values())), model.offload is not None
    method, why = choose_method(settings.method, model.module, split.first, metric, pairs=pairs, offloaded=offloaded)
    known = recorded_choice(earlier, model=model, data=data, parts=parts) if settings.quantizer == "auto" else None
    quantizer, choice = known or choose_quantizer(
        settings.quantizer,
        model,
        layers,
        candidates,
        calibration=split.first,
        held_out=split.held_out,
        metric=metric,
        data_free=offloaded or method == WeightOnly.name,
    )
    source = source_of(model, path)
    header = SensitivityHeader(
        model=source,
        data={
            "source": data.source,
            "sha256": data.sha256,
            "description": data.description,
            **(reading or {}),
            **splitting,
            "samples": {"calibration": split.calibration.samples, "held_out": split.held_out.samples},
        },
        settings={
            **metric.settings(),
            "method": method,
            "quantizer": quantizer,
        },
        layers=tuple(layers),
        candidates=candidates,
        rest=inventory(model, layers, source=source, quantizer=quantizer),
        notes=(*reasons, why, choice, *_added(parts), *_unreached(discovery), *too_large),
        versions={"mpq": version("mpq"), "torch": torch.__version__, "python": platform.python_version()},
    )
    return Prepared(header, split.calibration, split.first, metric)


def chosen_layers(discovery: Discovery, settings: AnalysisSettings) -> list[Layer]:
    """The layers to search: those that match `targets` (all if empty) and do not match `ignore`, in model order."""
    known = [layer.name for layer in (*discovery.layers, *discovery.unreached)]
    kept = set(select(known, settings.targets, option="--targets")) if settings.targets else set(known)
    kept -= set(select(known, settings.ignore, option="--ignore")) if settings.ignore else set()
    layers = [layer for layer in discovery.layers if layer.name in kept]
    if not layers:
        kind = PatternError if settings.targets or settings.ignore else ModelError
        raise kind("no layer is left to search: widen --targets or narrow --ignore")
    return layers


def _added(parts: Mapping[str, Any]) -> list[str]:
    sizes = parts.get("parts")
    if not sizes:
        return []
    kept = f"these keep their figures, and method, quantizer and statistics stay those of the first {sizes[0]}"
    return [f"{sizes[-1]} samples added to {sum(sizes[:-1])}: {kept}"]


def _unreached(discovery: Discovery) -> list[str]:
    names = [layer.name for layer in discovery.unreached]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"never reached by the calibration data, so left as they are: {shown}"]
