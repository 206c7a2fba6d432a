"""Remarks on a plan: what a reviewer would stop at, each with its reason. No torch.

A layer is remarked on when it had no choice, when a tie raised it, when measured plans overruled the table, or when its bits are far from
what its rank by sensitivity suggests: one of the most sensitive layers with the fewest bits, or one of the least sensitive with many.
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
_RAISED = 4.0  # a tie raised a layer when another one of it needs the bits this many times as much


def remarks(
    problem: Problem, choice: Sequence[int], table: Sensitivity, *, exact: Sequence[int], pins: Mapping[str, Scheme]
) -> dict[str, str]:
    """A remark by layer name, for the layers that deserve one.

    Args:
        problem: what was solved.
        choice: the plan, one option per group.
        table: the analysis.
        exact: the choice that is optimal for the table; equal to `choice` where nothing was measured, or where a uniform plan won.
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
                told.append(f"measured plans decided, the table alone says {optimal[layer.name]}")
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
        yield "the only scheme that its tie has in common"


def _raised(layer: Layer, group: Group, index: int, table: Sensitivity) -> Iterator[str]:
    """Who of a tie needs the bits, for a layer that does not."""
    lower = [option for option in group.options if option.cost < group.options[index].cost]
    if len(group.layers) < 2 or not lower:
        return
    below, taken = max(lower, key=lambda option: option.cost).schemes, group.options[index].schemes
    needs = {each.name: table.mean(each.name, below[each.name]) - table.mean(each.name, taken[each.name]) for each in group.layers}
    other = max(needs, key=lambda name: needs[name])
    if needs[other] > _RAISED * max(needs[layer.name], 0.0):
        yield f"raised by its tie: {other} needs it"


def _by_rank(table: Sensitivity, schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Remarks on layers whose bits go against their rank by error at the smallest scheme."""
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
