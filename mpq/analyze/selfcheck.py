"""Self-check: a few random whole plans are measured for real, to say how well the table predicts plans."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpq.analyze.method import Context
from mpq.models.reference import Reference
from mpq.records.prediction import additive, interactions, quality
from mpq.records.sensitivity import Sensitivity
from mpq.schemes import Scheme

PLANS = 12
_SHARES = (0.12, 0.25, 0.4)  # of the way from the smallest to the largest plan: where budgets usually lie


def self_check(context: Context) -> dict[str, Any]:
    """Quality of the table's predictions on `PLANS` random plans, measured on the calibration samples."""
    reference = Reference(context.model.module, context.prepared.calibration, context.prepared.metric)
    plans = list(random_plans(context.table, seed=int(context.prepared.header.data["seed"])))
    measured: list[float] = []
    for done, plan in enumerate(plans, start=1):
        measured.append(float(reference.errors(context.variants.weights(plan)).mean()))
        context.on_progress(done, len(plans), "self-check on whole plans")
    context.cost["self_check_passes"] = reference.forwards
    found = {"plans": len(plans), "additive": quality([additive(context.table, plan) for plan in plans], measured).to_dict()}
    together = [interactions(context.table, plan) for plan in plans]
    if all(value is not None for value in together):
        found["interactions"] = quality([value for value in together if value is not None], measured).to_dict()
    return found


def random_plans(table: Sensitivity, *, seed: int) -> Iterator[dict[str, Scheme]]:
    """Random plans of three sizes: from the smallest plan, random layers take random larger schemes until the size is reached."""
    generator = np.random.default_rng(seed)
    candidates = table.header.candidates
    options = {
        layer.name: [s for s in candidates[layer.name] if math.isfinite(table.mean(layer.name, s))] or list(candidates[layer.name])
        for layer in table.layers
    }
    bits = {layer.name: {s: s.stored_bits(layer.matrix) for s in options[layer.name]} for layer in table.layers}
    smallest = {name: min(sizes, key=lambda s: (sizes[s], str(s))) for name, sizes in bits.items()}
    low = sum(bits[name][scheme] for name, scheme in smallest.items())
    high = sum(max(sizes.values()) for sizes in bits.values())
    names = list(options)
    for number in range(PLANS):
        target = low + _SHARES[number % len(_SHARES)] * (high - low)
        plan, total = dict(smallest), low
        for index in generator.permutation(len(names)):
            name = names[int(index)]
            scheme = options[name][int(generator.integers(len(options[name])))]
            if total + bits[name][scheme] - bits[name][plan[name]] <= target:
                total += bits[name][scheme] - bits[name][plan[name]]
                plan[name] = scheme
        yield plan
