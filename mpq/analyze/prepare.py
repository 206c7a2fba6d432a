"""Prepares an analysis: everything that it will measure is decided and checked before the first measurement."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mpq.analyze.candidates import candidates_for, expand
from mpq.analyze.choose_layers import chosen_layers, tied_notes
from mpq.analyze.choose_method import choose_method
from mpq.analyze.choose_quantizer import choose_quantizer, recorded_choice
from mpq.analyze.equalize import settled_equalization
from mpq.analyze.methods.weight import WeightOnly
from mpq.analyze.resume import parts_of, split_of, spread_of
from mpq.analyze.task import Prepared
from mpq.analyze.unused import unused_layers
from mpq.calibration.memory_parts import wide_lines
from mpq.config import AnalysisSettings
from mpq.data.dataset import Data, Split
from mpq.data.split_rule import POSITION
from mpq.distribution import VERSION
from mpq.errors import ModelError
from mpq.models.layers.discover import Discovery, discover
from mpq.models.layers.outside_state import outside_notes, outside_weights
from mpq.models.layers.shared_rows import with_shared_rows
from mpq.models.layers.unquantized_tensors import dtype_notes, inventory, rest_options, source_of
from mpq.models.layers.without_effect import without_effect
from mpq.models.memory.store import Store
from mpq.models.running.certainty import certainty_of
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.fake_quantized import Progress
from mpq.models.running.known import scope_for
from mpq.models.running.storable import sixteen_bits, storable_candidates
from mpq.models.sources.loaded import LoadedModel
from mpq.records.equalization import Chain
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import SensitivityHeader
from mpq.shown import listed
from mpq.tensors.quantizers.registry import quantizer_named

_EXAMINED = 256  # samples that give floors, spreads and the certainty of the reference


def prepare(
    model: LoadedModel,
    data: Data,
    settings: AnalysisSettings,
    *,
    path: str | None = None,
    reading: dict[str, object] | None = None,
    earlier: SensitivityHeader | None = None,
    store: Store | None = None,
    workers: str = "1",
    on_progress: Progress = lambda *_: None,
) -> Prepared:
    """Decide everything about an analysis of `model`.

    Args:
        model: the unquantized model.
        data: all samples; they are split here.
        settings: the user's settings.
        path: the model's path, relative to the folder of the sensitivity file.
        reading: how the data was read (source, number of samples, ...), so that the search can read it again.
        earlier: the header of an earlier analysis that this one resumes; its choice of a quantizer is kept and not measured again.
        store: keeps codes and statistics for the analysis.
        workers: the number of processes that quantize for the choice of a quantizer, or "auto".
        on_progress: called after each layer that is quantized for this choice.

    Raises:
        ModelError: if the model has no weight to quantize, or none is left after `targets` and `ignore`.
        PatternError: if a pattern matches nothing.
        DataError: if the data does not match the model or cannot be split.
        SchemeError: if a candidate is unknown.
    """
    wanted = expand(settings.candidates)
    if settings.quantizer != "auto":
        quantizer_named(settings.quantizer)  # refused before the model runs
    parts = parts_of(earlier, data)
    spread = {"spread": spread_of(earlier, data, parts)}
    splitting = {"held_out": settings.held_out, "seed": settings.seed, **split_of(earlier, data, parts), **spread, **parts}
    split = data.split_as(splitting)
    some = split.first.spread(_EXAMINED)
    metric, reasons = choose_comparison(model.module, some.batches, metric=settings.metric, outputs=settings.outputs)
    discovery = discover(model.module, split.calibration.batches)
    layers = chosen_layers(discovery, settings)
    unused = [] if model.offload is not None else unused_layers(model.module, layers, split.first, metric)
    layers = [layer for layer in layers if layer not in unused]
    if not layers:
        raise ModelError("no compared output depends on any layer: choose other outputs with --outputs")
    idle = without_effect(model.module, layers, split.calibration.batches)
    layers = [layer for layer in layers if layer not in idle]
    if not layers:
        raise ModelError(f"no layers left to search: {_idle(idle)[0]}")
    layers, shared = with_shared_rows(model.module, layers)
    candidates = {layer.name: candidates_for(layer, wanted, lambda one: sixteen_bits(model.module, one)) for layer in layers}
    candidates, too_large = storable_candidates(model.module, layers, candidates)
    pairs, offloaded = sum(map(len, candidates.values())), model.offload is not None
    method, why = choose_method(settings.method, model.module, split.first, metric, pairs=pairs)
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
        known=None if store is None else scope_for(store, model.sha256, split.first),
        workers=workers,
        on_progress=on_progress,
    )
    certainty = certainty_of(model.module, some.batches, metric)
    caution = certainty.note("calibrate on validation data")
    held = split.held_out.spread(_EXAMINED).batches
    shift = None if model.offload is not None else certainty.shift_note(certainty_of(model.module, held, metric))
    equalization, scaled = settled_equalization(model.module, split, layers, candidates, metric, settings, earlier)
    layers, alike = _unscaled_alike(layers, equalization, shared)
    source, counts = source_of(model, path), _counts(split, data)
    rest = inventory(model, layers, source=source, quantizer=quantizer)
    outside = outside_weights(model.module, split.calibration.batches[0])
    total = rest.original_bytes + sum(layer.original_bytes for layer in layers)
    header = SensitivityHeader(
        model=source,
        data={
            "source": data.source,
            "sha256": data.sha256,
            "description": data.description,
            **(reading or {}),
            **splitting,
            "samples": counts,
            **({"caution": caution} if caution else {}),
            **({"shift": shift} if shift else {}),
        },
        settings={
            **metric.settings(),
            "method": method,
            "quantizer": quantizer,
            **({"alike": {layer.name: layer.alike for layer in layers if layer.alike}} if alike else {}),
            **({"weight_errors": "scaled"} if method == WeightOnly.name else {}),  # an analysis without them is a different one
        },
        layers=tuple(layers),
        candidates=candidates,
        rest=rest,
        rest_as=rest_options(model, layers, source=source, quantizer=quantizer),
        notes=(
            *model.notes,
            *alike,
            *reasons,
            why,
            choice,
            *scaled,
            *_split_notes(splitting, counts),
            *(note for note in (caution, shift) if note),
            *_added(parts),
            *tied_notes(discovery, settings),
            *_unreached(discovery),
            *_stacks(discovery),
            *_unused(unused),
            *_idle(idle),
            *outside_notes(outside, total),
            *dtype_notes(model.module, layers, total),
            *too_large,
            *wide_lines(quantizer_named(quantizer), layers),
        ),
        equalization=equalization,
        versions={"mpq": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    )
    return Prepared(header, split.calibration, split.first, metric)


def _unscaled_alike(layers: Iterable[Layer], equalization: Iterable[Chain], notes: Mapping[str, str]) -> tuple[list[Layer], list[str]]:
    """The layers without common rows where channels are scaled, which may make them unlike, and the notes about the other ones."""
    scaled = {name for chain in equalization for name in (*chain.multiplied, *chain.divided)}
    found = [replace(layer, alike=0) if layer.parameters[0] in scaled else layer for layer in layers]
    return found, [notes[layer.name] for layer in found if layer.alike]


def _counts(split: Split, data: Data) -> dict[str, int]:
    """Numbers of samples on each side, and on neither."""
    found = {"calibration": split.calibration.samples, "held_out": split.held_out.samples}
    unused = data.samples - sum(found.values())
    return found | ({"unused": unused} if unused else {})


def _split_notes(splitting: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    if splitting.get("split") != POSITION:
        return []
    unused = counts.get("unused", 0)
    gap = f", and {unused} between the two parts {'is' if unused == 1 else 'are'} not used" if unused else ""
    return [f"split by position: the last {counts['held_out']} samples are held out{gap}; --split random mixes them"]


def _added(parts: Mapping[str, Any]) -> list[str]:
    sizes = parts.get("parts")
    if not sizes:
        return []
    kept = f"the earlier samples keep their values; method, quantizer and statistics stay those of the first {sizes[0]}"
    return [f"{sizes[-1]} samples added to {sum(sizes[:-1])}: {kept}"]


def _unused(layers: list[Layer]) -> list[str]:
    return [f"no compared output depends on them, so left unquantized: {_some(layers)}"] if layers else []


def _unreached(discovery: Discovery) -> list[str]:
    return [f"never reached by the calibration data, so left unquantized: {_some(discovery.unreached)}"] if discovery.unreached else []


def _stacks(discovery: Discovery) -> list[str]:
    told = [f"{reached} of the {count} matrices of {name}" for name, (reached, count) in discovery.stacks.items()]
    return [f"calibration reaches {listed(told, 5)}; the error of the others is not measured"] if told else []


def _idle(layers: Sequence[Layer]) -> list[str]:
    if not layers:
        return []
    why = "the state that they write is restored before every call, so it has no effect"
    advice = "to search them, wrap the model in a module that runs whole sequences"
    return [f"no effect on the outputs of a single call, so left unquantized ({why}; {advice}): {_some(layers)}"]


def _some(layers: Sequence[Layer]) -> str:
    return listed([layer.name for layer in layers], 5)
