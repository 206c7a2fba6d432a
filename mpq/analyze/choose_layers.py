"""Which layers of a model are searched: those that the user's patterns select, by any name of a tied tensor."""

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
        PatternError: if a pattern matches nothing, or no layers are left.
        ModelError: if the model has none.
    """
    known = _names(discovery)
    kept = {known[name] for name in _picked(known, settings.targets, "--targets")} if settings.targets else set(known.values())
    kept -= {known[name] for name in _picked(known, settings.ignore, "--ignore")}
    layers = [layer for layer in discovery.layers if layer.name in kept]
    if not layers:
        kind = PatternError if settings.targets or settings.ignore else ModelError
        raise kind("no layers left to search: widen --targets or narrow --ignore")
    return layers


def tied_notes(discovery: Discovery, settings: AnalysisSettings) -> list[str]:
    """A note for each layer that was selected by another name of its tied tensor, not by its own name."""
    known, notes = _names(discovery), []
    for option, patterns, what in (("--targets", settings.targets, "searched"), ("--ignore", settings.ignore, "left unquantized")):
        picked = _picked(known, patterns, option)
        notes += [
            f"{option} {name}: it is tied to {known[name]} (one tensor with two names), so both are {what}"
            for name in picked
            if known[name] not in picked
        ]
    return notes


def _names(discovery: Discovery) -> dict[str, str]:
    """All names of layers, including those of tied tensors, each with the layer's own name."""
    layers = (*discovery.layers, *discovery.unreached)
    others = {name.removesuffix(".weight"): layer.name for layer in layers for name in layer.parameters[1:]}
    return others | {layer.name: layer.name for layer in layers}


def _picked(known: dict[str, str], patterns: Sequence[str], option: str) -> list[str]:
    return select(list(known), patterns, option=option) if patterns else []
