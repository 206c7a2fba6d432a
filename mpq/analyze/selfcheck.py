"""Self-check: measures a few random whole plans to see how well the table predicts plans.

The plans are measured on some of the calibration samples, and predicted from the figures of the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpq.analyze.methods.base import Context
from mpq.data.dataset import Data
from mpq.evidence.prediction import additive, interactions, quality
from mpq.formats.scheme import Scheme
from mpq.models.running.ranks import float_bytes
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity

PLANS = 12
_SAMPLES = 32
_HALVINGS = 40
_REDRAWS = 8  # attempts if a plan was drawn before, each from a wider distribution
_SHARES = (0.12, 0.25, 0.4)  # positions between the smallest and the largest plan, where budgets usually are


def self_check(context: Context) -> dict[str, Any]:
    """The quality of the table's predictions on `PLANS` random plans, measured on up to 32 calibration samples."""
    model, prepared = context.model, context.prepared
    some = prepared.calibration.spread(_SAMPLES)
    reference = Reference(model.module, some, prepared.metric, offload=model.offload)
    plans = list(random_plans(context.table, seed=int(context.prepared.header.data["seed"])))
    table = on_samples(context.table, prepared.calibration, _SAMPLES)
    measured: list[float] = []

    def error_of(unit: int) -> float:
        return float(reference.errors(context.variants.weights(plans[unit])).mean())

    for done, error in enumerate(context.ranks.each(len(plans), error_of, pack=float_bytes, unpack=float), start=1):
        measured.append(error)
        context.on_progress(done, len(plans), "self-check on whole plans")
    context.cost["self_check_passes"] = reference.forwards
    found: dict[str, Any] = {"plans": len(plans), "samples": some.samples}
    found["additive"] = quality([additive(table, plan) for plan in plans], measured).to_dict()
    together = [interactions(table, plan) for plan in plans]
    if all(value is not None for value in together):
        found["interactions"] = quality([value for value in together if value is not None], measured).to_dict()
    return found


def on_samples(table: Sensitivity, data: Data, count: int) -> Sensitivity:
    """The figures of the samples of `data.spread(count)` alone, for pairs that have figures of all samples of `data`."""
    places, size = data.spread_places(count), data.fixed_batch or 1
    errors = {pair: values[places] if len(values) == data.samples else values for pair, values in table.errors.items()}
    units = [place // size for place in places[::size]]
    products = {pair: values.reshape(data.samples // size, -1)[units].reshape(-1) for pair, values in table.products.items()}
    return replace(table, errors=errors, products=products)


def random_plans(table: Sensitivity, *, seed: int, count: int = PLANS, shares: Sequence[float] = _SHARES) -> Iterator[dict[str, Scheme]]:
    """Plans like those that a search compares, at a few sizes: the best ones after each layer's errors are multiplied by a random factor.

    Args:
        table: complete.
        seed: seed of the factors, which are log-normal; one standard deviation is a factor of e.
        count: number of plans.
        shares: positions between the smallest and the largest plan, used in turn.
    """
    generator = np.random.default_rng(seed)
    options = {layer.name: _options(table, layer) for layer in table.layers}
    bits = {layer.name: np.array([s.stored_bits(layer.matrix) for s in options[layer.name]], float) for layer in table.layers}
    alone = {name: np.array([table.mean(name, scheme) for scheme in schemes]) for name, schemes in options.items()}
    low, high = (sum(float(edge(sizes)) for sizes in bits.values()) for edge in (np.min, np.max))
    seen: list[dict[str, Scheme]] = []
    for number in range(count):
        for widening in range(_REDRAWS):
            factors = np.exp((1 + widening / 4) * generator.standard_normal(len(options)))
            errors = {name: factor * figures for factor, (name, figures) in zip(factors, alone.items(), strict=True)}
            plan = _cheapest(options, bits, errors, limit=low + shares[number % len(shares)] * (high - low))
            if plan not in seen:
                break
        seen.append(plan)
        yield plan


def _options(table: Sensitivity, layer: Layer) -> list[Scheme]:
    candidates = list(table.header.candidates[layer.name])
    return [scheme for scheme in candidates if math.isfinite(table.mean(layer.name, scheme))] or candidates


def _cheapest(
    options: Mapping[str, list[Scheme]], bits: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray], *, limit: float
) -> dict[str, Scheme]:
    """The plan within `limit` bits that is best at some price per bit, found by bisection over the price."""

    def at(price: float) -> dict[str, int]:
        return {name: int(np.argmin(errors[name] + price * bits[name])) for name in options}

    def size(chosen: Mapping[str, int]) -> float:
        return sum(float(bits[name][index]) for name, index in chosen.items())

    fits = {name: int(np.argmin(bits[name])) for name in options}
    too_low, enough = 1e-30, 1e30
    for _ in range(_HALVINGS):
        price = math.sqrt(too_low * enough)
        chosen = at(price)
        if size(chosen) <= limit:
            fits, enough = chosen, price
        else:
            too_low = price
    return {name: options[name][index] for name, index in fits.items()}
