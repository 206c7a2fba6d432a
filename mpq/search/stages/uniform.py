"""Uniform plans: every layer with the same format. They always compete. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Group, Problem


@dataclass(frozen=True)
class Uniform:
    """A plan with one format: `name` is its scheme, `choice` one option per group, `exceptions` the layers that cannot use it."""

    name: str
    choice: tuple[int, ...]
    exceptions: tuple[str, ...]


def uniform_plans(problem: Problem, table: Sensitivity, pins: Mapping[str, Scheme]) -> list[Uniform]:
    """All uniform plans within the limit. A layer whose rows a group size does not divide uses the nearest possible group size."""
    found: dict[tuple[int, ...], Uniform] = {}
    for scheme in _families(table):
        indices = [_index(group, scheme, pins) for group in problem.groups]
        choice = tuple(index for index in indices if index is not None)
        if len(choice) == len(indices) and problem.fits(choice):
            schemes = problem.schemes(choice)
            exceptions = tuple(name for name, taken in schemes.items() if taken != scheme)
            found.setdefault(choice, Uniform(str(scheme), choice, exceptions))
    return list(found.values())


def _families(table: Sensitivity) -> Iterator[Scheme]:
    seen: set[Scheme] = set()
    for layer in table.layers:
        for scheme in table.header.candidates[layer.name]:
            if scheme not in seen:
                seen.add(scheme)
                yield scheme


def _index(group: Group, wanted: Scheme, pins: Mapping[str, Scheme]) -> int | None:
    """The option of `group` nearest to `wanted`: first by format (any 16-bit one for a 16-bit one), then by number of groups.

    Layers that are too small for a coded format use the smallest option of at least its size.
    """
    if any(layer.name in pins for layer in group.layers):
        return 0
    lead = group.layers[0]
    offered = [option.schemes[lead.name] for option in group.options]
    found = nearest_scheme(offered, wanted, lead) or larger_scheme(offered, wanted, lead)
    return None if found is None else offered.index(found)


def nearest_scheme(offered: Sequence[Scheme], wanted: Scheme, layer: Layer) -> Scheme | None:
    """The scheme of the same format with the nearest number of groups; any 16-bit format for a 16-bit one. None if there is none."""
    return min((each for each in offered if _same_kind(each, wanted)), key=lambda each: _distance(each, wanted, layer), default=None)


def larger_scheme(offered: Sequence[Scheme], wanted: Scheme, layer: Layer) -> Scheme | None:
    """The smallest scheme of at least the size of `wanted`, a coded one that the layer is too small for; None for other formats."""
    size = wanted.stored_bits(layer.matrix)
    enough = [each for each in offered if wanted.is_coded and each.stored_bits(layer.matrix) >= size]
    return min(enough, key=lambda each: each.stored_bits(layer.matrix), default=None)


def _same_kind(scheme: Scheme, wanted: Scheme) -> bool:
    if wanted.is_float or scheme.is_float:
        return scheme.is_float and wanted.is_float and scheme.bits == wanted.bits
    return scheme.format == wanted.format and scheme.symmetric == wanted.symmetric


def _distance(scheme: Scheme, wanted: Scheme, layer: Layer) -> tuple[int, bool]:
    columns = layer.matrix[1]
    return abs(scheme.groups(columns) - wanted.groups(columns)), scheme != wanted
