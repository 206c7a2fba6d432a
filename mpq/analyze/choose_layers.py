"""Which layers of a model are searched: those that the user's patterns pick, by any name of a tied tensor."""

from __future__ import annotations

from collections.abc import Sequence

from mpq.config import AnalysisSettings
from mpq.errors import ModelError, PatternError
from mpq.models.layers.discover import Discovery
from mpq.patterns import select
from mpq.records.layer import Layer


def chosen_layers(discovery: Discovery, settings: AnalysisSettings) -> list[Layer]:
    """The layers to search: those that match `targets` (all if empty) and do not match `ignore`, in model order.

    Raises:
        PatternError: if a pattern matches nothing, or no layer is left.
        ModelError: if there was none.
    """
    known = _names(discovery)
    kept = {known[name] for name in _picked(known, settings.targets, "--targets")} if settings.targets else set(known.values())
    kept -= {known[name] for name in _picked(known, settings.ignore, "--ignore")}
    layers = [layer for layer in discovery.layers if layer.name in kept]
    if not layers:
        kind = PatternError if settings.targets or settings.ignore else ModelError
        raise kind("no layer is left to search: widen --targets or narrow --ignore")
    return layers


def tied_notes(discovery: Discovery, settings: AnalysisSettings) -> list[str]:
    """That a layer was picked by the name of a tensor that it is one with, where its own name was not."""
    known, notes = _names(discovery), []
    for option, patterns, what in (("--targets", settings.targets, "searched"), ("--ignore", settings.ignore, "left as they are")):
        picked = _picked(known, patterns, option)
        notes += [
            f"{option} {name}: it is tied to {known[name]}, one tensor under both names, so both are {what}"
            for name in picked
            if known[name] not in picked
        ]
    return notes


def _names(discovery: Discovery) -> dict[str, str]:
    """All names of layers, those of tied tensors too, each with the name that the layer is called by."""
    layers = (*discovery.layers, *discovery.unreached)
    others = {name.removesuffix(".weight"): layer.name for layer in layers for name in layer.parameters[1:]}
    return others | {layer.name: layer.name for layer in layers}


def _picked(known: dict[str, str], patterns: Sequence[str], option: str) -> list[str]:
    return select(list(known), patterns, option=option) if patterns else []
