"""The uniform plan of a requested scheme, to compare mixed plans with. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mpq.evidence.prediction import additive
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for
from mpq.records.plan_sketches import with_sketches
from mpq.records.sensitivity import Sensitivity, standard_error
from mpq.search.final_decision import rounded
from mpq.search.measurers import Measurer
from mpq.search.origins import analysis_of, data_of
from mpq.search.result import SearchResult
from mpq.search.stages.uniform import larger_scheme, nearest_scheme


def uniform_plan(
    table: Sensitivity, scheme: Scheme, *, quantizer: str | None = None, measurer: Measurer | None = None, sketches: bool = False
) -> SearchResult:
    """The plan that gives every layer `scheme`, or the nearest scheme if a layer cannot use it.

    Args:
        table: the analysis; it predicts the plan's error if it measured all schemes of the plan with the same quantizer.
        scheme: for all layers, measured by the analysis or not.
        quantizer: the quantizer of the plan; by default that of the analysis.
        measurer: measures the plan on the real model with this quantizer; None for a plan without measurements.
        sketches: whether the artifact gets sketches of the calibration data.

    Returns:
        The result; its notes name the layers that cannot use the scheme, with what they use instead.
    """
    own = str(table.header.settings["quantizer"])
    chosen = quantizer or own
    schemes = {layer.name: uniform_scheme(table, layer, scheme) for layer in table.layers}
    plan = with_sketches(_plan(table, schemes, chosen), sketches)
    predicted = math.nan
    if chosen == own and schemes.items() <= table.errors.keys():
        predicted = additive(table, schemes)
    reason = f"uniform {scheme}, as requested"
    evidence: dict[str, Any] = {"assignment": plan.assignment, **table.compared, "predicted": rounded(predicted)}
    evidence |= {} if measurer is None else {"measured": _measured(measurer, schemes)}
    plan = replace(plan, evidence=evidence | {"decision": reason})
    notes = [*_exceptions(table, schemes, scheme), *([] if math.isfinite(predicted) else [_unpredicted(chosen, own)])]
    return SearchResult(plan, (), reason, 0 if measurer is None else 1, tuple(notes))


def uniform_scheme(table: Sensitivity, layer: Layer, wanted: Scheme) -> Scheme:
    """The scheme of a layer in the uniform plan of `wanted`: that scheme if it was measured; else, as in a search, the nearest measured one
    of the same format, or the next larger one if the layer is too small for a coded format; else the scheme itself, with one group per row
    if a group would be longer than a row.
    """
    measured = table.header.candidates[layer.name]
    if wanted in measured:
        return wanted
    nearest = nearest_scheme(measured, wanted, layer)
    if nearest is None and any(wanted in others for others in table.header.candidates.values()):
        nearest = larger_scheme(measured, wanted, layer)
    if nearest is not None:
        return nearest
    whole_row = wanted.group_size is not None and wanted.group_size >= layer.matrix[1]
    return Scheme(wanted.format, None, wanted.symmetric) if whole_row else wanted


def _plan(table: Sensitivity, schemes: Mapping[str, Scheme], quantizer: str) -> Plan:
    header, own = table.header, str(table.header.settings["quantizer"])
    longer = len(quantizer) - len(own)  # the artifact's header names the quantizer
    rest = replace(header.rest, header_bytes=header.rest.header_bytes + longer)
    bare = plan_for(header.layers, schemes, model=header.model, quantizer=quantizer, rest=rest)
    return replace(bare, equalization=header.equalization, data=data_of(table), analysis=analysis_of(table) if quantizer == own else {})


def _measured(measurer: Measurer, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parts = {"calibration": measurer.calibration(schemes), "held_out": measurer.held_out(schemes)}
    for name, errors in parts.items():
        found |= {name: rounded(float(errors.mean())), f"{name}_stderr": rounded(standard_error(errors))}
    return found | {"samples": {name: len(errors) for name, errors in parts.items()}}


def _exceptions(table: Sensitivity, schemes: Mapping[str, Scheme], wanted: Scheme) -> list[str]:
    """One line for each other scheme, with the layers that use it and the reason."""
    others: dict[tuple[Scheme, str], list[str]] = {}
    for name, scheme in schemes.items():
        if scheme != wanted:
            reason = "the nearest scheme measured for them" if scheme in table.header.candidates[name] else "a row has only one group"
            others.setdefault((scheme, reason), []).append(name)
    return [f"{scheme} instead of {wanted}, {reason}: {', '.join(names)}" for (scheme, reason), names in others.items()]


def _unpredicted(quantizer: str, own: str) -> str:
    if quantizer != own:
        return f"no predicted error: the analysis used the quantizer {own}, this plan uses {quantizer}"
    return "no predicted error: the analysis did not measure all of these schemes"
