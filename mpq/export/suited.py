"""What a search may choose so that a target stores the plan as it is: `mpq search --for TARGET`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from mpq.config import SearchSettings
from mpq.errors import UsageError
from mpq.export.registry import target_named
from mpq.formats.scheme import Scheme
from mpq.patterns import gathered
from mpq.records.sensitivity import Sensitivity
from mpq.shown import listed

_AUTO = "auto"
_SHOWN = 3


class Suited(NamedTuple):
    """Settings of a search that suits a target, and what to say about it."""

    settings: SearchSettings
    notes: tuple[str, ...]


def suited(settings: SearchSettings, table: Sensitivity, target: str) -> Suited:
    """The same settings, with ties for what the target fuses, and with only those candidates that it stores as they are.

    Candidates that the user chose by pattern stay the only ones.

    Raises:
        UsageError: if there is no such target, or it stores none of the candidates of a layer.
        PatternError: if a pattern of the user matches no layer.
    """
    goal = target_named(target)
    asked = _asked(settings, table)
    chosen: dict[str, tuple[str, ...]] = {}
    for layer in table.layers:
        chosen[layer.name] = tuple(str(scheme) for scheme in asked[layer.name] if goal.expresses(layer, scheme))
        if not chosen[layer.name]:
            bits = ",".join(map(str, (*goal.abilities.bits, 16)))
            raise UsageError(
                f"{target} stores none of the candidates of {layer.name}, {listed([str(each) for each in asked[layer.name]], _SHOWN)}: "
                f"analyze again, for example with --candidates {bits}"
            )
    ties = settings.ties if not goal.fuses or _AUTO in settings.ties else (*settings.ties, _AUTO)
    whole = [layer.name for layer in table.layers if not goal.stores(layer)]
    return Suited(replace(settings, candidates=chosen, ties=ties), (_whole_note(target, whole),) if whole else ())


def _asked(settings: SearchSettings, table: Sensitivity) -> dict[str, list[Scheme]]:
    """By layer name, the measured schemes that the user leaves it."""
    names = [layer.name for layer in table.layers]
    wanted = gathered(names, settings.candidates, option="--candidates")
    return {
        name: [scheme for scheme in table.header.candidates[name] if name not in wanted or scheme.spellings & wanted[name]]
        for name in names
    }


def _whole_note(target: str, names: list[str]) -> str:
    return (
        f"{target} keeps {listed(names, _SHOWN)} in floating point, so bytes that a plan saves there are not saved in the export: "
        "leave such layers out with mpq analyze --ignore"
    )
