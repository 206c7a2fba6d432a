"""The user's constraints on a plan: pins, ties, minimum bits and candidates by pattern, a plan to start from. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mpq.budget import Scope
from mpq.config import SearchSettings
from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.patterns import gathered, select
from mpq.records.fused_layers import fused_groups
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Group, Problem, build_groups

_EXPERT = re.compile(r"(.*\bexperts)\.\d+\.(.+)")


def groups_for(table: Sensitivity, settings: SearchSettings, *, scope: Scope) -> tuple[Group, ...]:
    """The groups of a table under the user's pins, ties and minimum bits.

    Raises:
        UsageError: if they name a layer that is not searched, or leave a group without an option.
    """
    pins, ties = pinned_layers(settings.pins, table), _ties(settings.ties, table)
    return allowed(limited(build_groups(table, scope=scope, pins=pins, ties=ties), settings.min_bits), settings.candidates)


def pinned_layers(pins: Mapping[str, Scheme], table: Sensitivity) -> dict[str, Scheme]:
    """The scheme by layer name of pins by pattern; a name wins over a pattern, and a later pattern over an earlier one.

    Raises:
        PatternError: if a pattern matches no searched layer.
    """
    names = [layer.name for layer in table.layers]
    found = {name: scheme for pattern, scheme in pins.items() for name in select(names, [pattern], option="--pin")}
    return found | {name: scheme for name, scheme in pins.items() if name in found}


def _ties(given: Sequence[Sequence[str] | str], table: Sensitivity) -> Sequence[Sequence[str]]:
    named = [tie for tie in given if not isinstance(tie, str)]
    taken = {name for tie in named for name in tie}
    found = automatic_ties(table.layers) if "auto" in given else ()
    ties = [*named, *(tie for tie in found if not taken & set(tie))]
    names = [name for group in ties for name in group]
    _check_tied(names, table)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"layer '{repeated}' is tied twice: put each layer into one group only")
    return ties


def _check_tied(names: Sequence[str], table: Sensitivity) -> None:
    known = {layer.name for layer in table.layers}
    stranger = next((name for name in names if name not in known), None)
    if stranger is not None:
        raise UsageError(f"'{stranger}' is tied but is not a searched layer: `mpq show` on the sensitivity file lists them")


def automatic_ties(layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
    """Groups of layers that runtimes fuse: neighboring q/k/v and gate/up, and the experts of one block."""
    experts: dict[tuple[str, str], list[str]] = {}
    others: list[str] = []
    for layer in layers:
        match = _EXPERT.fullmatch(layer.name)
        if match is not None:
            experts.setdefault((match[1], match[2]), []).append(layer.name)
        else:
            others.append(layer.name)
    found = [tuple(names) for names in experts.values() if len(names) > 1]
    return (*found, *fused_groups(others, complete=True))


def limited(groups: Sequence[Group], min_bits: Mapping[str, int]) -> tuple[Group, ...]:
    """The groups without the options that give a layer fewer bits than `min_bits` requires, by pattern of names.

    Raises:
        PatternError: if a pattern matches no layer.
        UsageError: if a group has no option left.
    """
    names = [layer.name for group in groups for layer in group.layers]
    least = dict.fromkeys(names, 0)
    for pattern, bits in min_bits.items():
        for name in select(names, [pattern], option="--min-bits"):
            least[name] = max(least[name], bits)

    def none_left(group: Group) -> str:
        return f"no candidate of {group.name} has the {max(least[layer.name] for layer in group.layers)} bits that --min-bits requires"

    return _narrowed(groups, lambda name, scheme: scheme.rate >= least[name], none_left)


def allowed(groups: Sequence[Group], candidates: Mapping[str, Sequence[str]]) -> tuple[Group, ...]:
    """The groups with only the options whose schemes are among `candidates`, by pattern of names; other layers keep all options.

    A candidate is a scheme ("int4-g32"), a format ("nf4") or a number of bits ("8").

    Raises:
        PatternError: if a pattern matches no layer.
        UsageError: if a group has no option left.
    """
    names = [layer.name for group in groups for layer in group.layers]
    wanted = gathered(names, candidates, option="--candidates")

    def none_left(group: Group) -> str:
        asked = sorted(set().union(*(wanted.get(layer.name, set()) for layer in group.layers)))
        known = ", ".join(str(option.schemes[group.layers[0].name]) for option in group.options)
        return f"--candidates leaves no scheme for {group.name}: {', '.join(asked)} was requested, but only {known} were measured"

    return _narrowed(groups, lambda name, scheme: name not in wanted or bool(scheme.spellings & wanted[name]), none_left)


def _narrowed(groups: Sequence[Group], allows: Callable[[str, Scheme], bool], none_left: Callable[[Group], str]) -> tuple[Group, ...]:
    """The groups with only the options whose schemes are all allowed; `none_left` gives the message for a group without any."""
    found = []
    for group in groups:
        options = tuple(option for option in group.options if all(allows(name, scheme) for name, scheme in option.schemes.items()))
        if not options:
            raise UsageError(none_left(group))
        found.append(Group(group.layers, options))
    return tuple(found)


def choice_of(problem: Problem, schemes: Mapping[str, Scheme], otherwise: Sequence[int]) -> tuple[int, ...]:
    """The choice that gives each layer the scheme of a plan, or the next larger one among its options.

    Groups with a layer that `schemes` lacks use the option of `otherwise`, another choice.
    """
    whole = [all(layer.name in schemes for layer in group.layers) for group in problem.groups]
    return tuple(_nearest(group, schemes) if known else other for group, known, other in zip(problem.groups, whole, otherwise, strict=True))


def _nearest(group: Group, schemes: Mapping[str, Scheme]) -> int:
    exact = [i for i, option in enumerate(group.options) if all(schemes[name] == scheme for name, scheme in option.schemes.items())]
    if exact:
        return exact[0]
    wanted = sum(schemes[layer.name].stored_bits(layer.matrix) for layer in group.layers)
    sizes = [sum(scheme.stored_bits(layer.matrix) for layer in group.layers for scheme in (o.schemes[layer.name],)) for o in group.options]
    larger = [i for i, size in enumerate(sizes) if size >= wanted]
    return min(larger, key=lambda i: sizes[i]) if larger else max(range(len(sizes)), key=sizes.__getitem__)
