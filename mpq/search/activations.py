"""Which tensors between layers become integers. No torch.

Integer tensors cost no bytes of weights: they make the model faster, since a layer computes in integers where its weight and all that it
reads are integers. So every measured group is on, as far as the error allows:

- A group has the scheme with the lower error, where two were measured.
- A group whose layers all keep weights that runtimes do not multiply as integers (floats, groups of columns, zero points) is off, for it
  would lose accuracy and gain nothing.
- With a number E, groups are taken in order of their error per multiplication, as long as their errors add up to at most E.
- With a limit on the held-out error of a plan, the longest beginning of that order with which the whole plan keeps it, by bisection.

A group without layers (inside of an island) comes with the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpq.formats.activations import ALL, OFF, is_integer_product
from mpq.formats.scheme import Scheme
from mpq.records.activations import Groups, header_bytes
from mpq.records.measured_activations import MeasuredGroup, groups_of
from mpq.records.sensitivity import Errors, Sensitivity, standard_error
from mpq.search.final_decision import rounded
from mpq.search.measurers import Measurer, MeasurerWithActivations
from mpq.search.result import SearchResult


def best_groups(table: Sensitivity) -> dict[str, MeasuredGroup]:
    """Each group under the scheme with the lower error, in the order of the model."""
    found: dict[str, MeasuredGroup] = {}
    for (name, _), measured in table.activations.items():
        if name not in found or measured.mean < found[name].mean:
            found[name] = measured
    return {name: each for name, each in found.items() if math.isfinite(each.mean)}


def useful_groups(table: Sensitivity, layers: Mapping[str, Scheme]) -> list[MeasuredGroup]:
    """The groups that make a plan faster, those that cost least error per multiplication first."""
    found = [
        each
        for each in best_groups(table).values()
        if not each.layers or any(name in layers and is_integer_product(layers[name]) for name in each.layers)
    ]
    return sorted(found, key=lambda each: each.mean / each.work if each.work else 0.0)


def chosen_groups(table: Sensitivity, layers: Mapping[str, Scheme], activations: str) -> list[MeasuredGroup]:
    """The groups that are on, by the table alone.

    Args:
        table: the analysis.
        layers: schemes of the plan.
        activations: "all", "off", or the largest sum of errors.
    """
    if activations == OFF:
        return []
    limit, found, total = math.inf if activations == ALL else float(activations), list[MeasuredGroup](), 0.0
    for each in useful_groups(table, layers):
        if total + max(0.0, each.mean) <= limit:
            found.append(each)
            total += max(0.0, each.mean)
    return found


def reserved_bytes(table: Sensitivity, activations: str) -> int:
    """Bytes of an artifact's header that groups may take, at most."""
    return 0 if activations == OFF else header_bytes(groups_of(best_groups(table)))


def with_groups(result: SearchResult, table: Sensitivity, groups: Sequence[MeasuredGroup], measurer: Measurer | None) -> SearchResult:
    """The result with these groups in its plan, measured on the held-out samples where there is a measurer."""
    if not groups:
        return result
    by_name = {each.name: each for each in groups}
    chosen = {name: by_name[name] for name in best_groups(table) if name in by_name}
    plan = replace(result.plan, activations=groups_of(chosen))
    facts: dict[str, Any] = {"predicted": rounded(sum(each.mean for each in groups)), "share_of_work": _share(table, groups)}
    evidence = dict(plan.evidence)
    measured = evidence.get("measured")
    if measurer is not None and measured is not None:
        errors = _measured(measurer, plan.layers, plan.activations)
        facts |= {"weights_alone": measured["held_out"], "weights_alone_stderr": measured["held_out_stderr"]}
        whole = {"held_out": rounded(float(errors.mean())), "held_out_stderr": rounded(standard_error(errors))}
        evidence["measured"] = measured | whole
    evidence["activations"] = facts
    plan = replace(plan, evidence=evidence | {"assignment": plan.assignment})
    return replace(result, plan=plan)


def most_groups(
    result: SearchResult, table: Sensitivity, activations: str, measurer: Measurer, keeps: Callable[[SearchResult], bool]
) -> SearchResult:
    """The result with as many groups as `keeps` allows, in their order, by bisection; it must allow the result itself."""
    order = chosen_groups(table, result.plan.layers, activations)
    best, low, high = result, 0, len(order)
    while low < high:
        count = high if low == 0 and high == len(order) else (low + high + 1) // 2
        tried = with_groups(result, table, order[:count], measurer)
        if keeps(tried):
            best, low = tried, count
        else:
            high = count - 1
    return best


def _share(table: Sensitivity, groups: Sequence[MeasuredGroup]) -> float:
    """The share of the multiplications that read integers."""
    whole = sum(each.work for each in best_groups(table).values())
    return round(sum(each.work for each in groups) / whole, 4) if whole else 0.0


def _measured(measurer: Measurer, layers: Mapping[str, Scheme], groups: Groups) -> Errors:
    if isinstance(measurer, MeasurerWithActivations):
        return measurer.held_out_rounded(layers, groups)
    return measurer.held_out(layers)
