"""Remarks on a plan: what would surprise a reviewer, each with its reason. No torch.

A layer gets a remark if it had no choice, if it was raised because it is tied, if measured plans overruled the table, or if its bits are
far from its rank by sensitivity: one of the most sensitive layers with few bits, or one of the least sensitive with many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Group, Problem

_QUARTER = 0.25
_LEAST_LAYERS = 4
_RAISED = 4.0  # a layer counts as raised by a tie if a tied layer needs the bits this many times as much


def remarks(
    problem: Problem, choice: Sequence[int], table: Sensitivity, *, exact: Sequence[int], pins: Mapping[str, Scheme]
) -> dict[str, str]:
    """Remarks by layer name, for the layers that need one.

    Args:
        problem: the solved problem.
        choice: the plan, one option per group.
        table: the analysis.
        exact: the table optimum; equal to `choice` if nothing was measured, or if a uniform plan won.
        pins: layers whose scheme the user fixed, which need no reason.
    """
    schemes, optimal = problem.schemes(choice), problem.schemes(exact)
    ranked = _by_rank(table, schemes)
    found: dict[str, list[str]] = {layer.name: [] for layer in table.layers}
    for group, index in zip(problem.groups, choice, strict=True):
        for layer in group.layers:
            told = found[layer.name]
            told += [f"one tensor with {name}" for name in layer.parameters[1:]]
            if layer.name in pins:
                continue
            told += _no_choice(layer, group, table)
            told += _raised(layer, group, index, table)
            if schemes[layer.name] != optimal[layer.name]:
                told.append(f"decided by measured plans; the table alone says {optimal[layer.name]}")
            elif len(group.layers) == 1 and layer.name in ranked:
                told.append(ranked[layer.name])
    return {name: "; ".join(told) for name, told in found.items() if told}


def _no_choice(layer: Layer, group: Group, table: Sensitivity) -> Iterator[str]:
    offered = table.header.candidates[layer.name]
    if len(group.options) > 1:
        return
    if len(offered) == 1:
        yield "its only candidate"
    elif not all(math.isfinite(table.mean(layer.name, scheme)) for scheme in offered):
        yield "other candidates gave NaN or infinity"
    elif len(group.layers) > 1:
        yield "the only scheme common to its tied layers"


def _raised(layer: Layer, group: Group, index: int, table: Sensitivity) -> Iterator[str]:
    """The tied layer that needs the bits, for a layer that does not."""
    lower = [option for option in group.options if option.cost < group.options[index].cost]
    if len(group.layers) < 2 or not lower:
        return
    below, taken = max(lower, key=lambda option: option.cost).schemes, group.options[index].schemes
    needs = {each.name: table.mean(each.name, below[each.name]) - table.mean(each.name, taken[each.name]) for each in group.layers}
    other = max(needs, key=lambda name: needs[name])
    if needs[other] > _RAISED * max(needs[layer.name], 0.0):
        yield f"raised because it is tied: {other} needs it"


def _by_rank(table: Sensitivity, schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Remarks on layers whose bits differ from their rank by error at the smallest scheme."""
    layers = table.layers
    if len(layers) < _LEAST_LAYERS or len({scheme.rate for scheme in schemes.values()}) < 2:
        return {}
    order = sorted(layers, key=lambda layer: -_at_smallest(layer, table))
    count = max(1, round(_QUARTER * len(layers)))
    bits = {layer.name: schemes[layer.name].stored_bits(layer.matrix) / layer.weights for layer in layers}
    fewest, middle = min(scheme.rate for scheme in schemes.values()), median(bits.values())
    weights = sum(layer.weights for layer in layers)
    found: dict[str, str] = {}
    for place, layer in enumerate(order, start=1):
        share = layer.weights / weights
        usual = 1 / len(layers)
        if place <= count and schemes[layer.name].rate == fewest:
            reason = f"has {share:.1%} of the weights" if share > usual else "more bits would save little"
            found[layer.name] = f"number {place} of {len(layers)} by sensitivity, but {reason}"
        elif place > len(layers) - count and bits[layer.name] > middle and schemes[layer.name].rate > fewest:
            reason = f"has only {share:.1%} of the weights" if share < usual else "its error falls fast"
            found[layer.name] = f"number {place} of {len(layers)} by sensitivity, but {reason}"
    return found


def _at_smallest(layer: Layer, table: Sensitivity) -> float:
    return table.mean(layer.name, min(table.header.candidates[layer.name], key=lambda scheme: scheme.stored_bits(layer.matrix)))
