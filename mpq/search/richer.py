"""What candidates that were not measured would give at the same size, estimated without the model and its weights. No torch.

To second order, a layer's error is in proportion to the squared error of its weights. So each measured error is divided by the squared
error of its scheme on normally distributed weights; between measured schemes that ratio is interpolated, and beyond them it stays. Times
the squared error of another scheme it gives the price of that one. The exact solver then allocates the same bytes with both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.errors import MpqError
from mpq.formats.base import Format
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.search.run import problem_for

Offer = Mapping[str, Sequence[Scheme]]
"""Schemes by layer name."""
_WINS = 0.8  # of the predicted error: estimates closer than that say nothing
_VALUES = 8192  # weights that squared errors are measured on
_SCALES = (*np.linspace(0.3, 1.05, 31), *np.linspace(-0.3, -1.05, 31))  # shares of the largest magnitude; negative ones flip signs
_ENTROPY_CODED = math.pi * math.e / 6  # squared error of coded uniform steps over the least possible at their rate (Gish and Pierce 1968)


@dataclass(frozen=True)
class Richer:
    """What an offer would give.

    Args:
        name: of the offer.
        ratio: the estimated error of the best plan with it, over the predicted error of the best one without.
    """

    name: str
    ratio: float


def richer(table: Sensitivity, budget: Budget, settings: SearchSettings, offers: Mapping[str, Offer]) -> list[Richer]:
    """The offers that would win clearly within a budget, best first.

    Args:
        table: the analysis.
        budget: of the plan.
        settings: of the search; where they restrict candidates, nothing is offered.
        offers: further schemes by layer name, by the name of the offer.
    """
    if settings.candidates:
        return []
    problem, solution = problem_for(table, budget, settings)
    now = problem.error(solution.choice)
    found: list[Richer] = []
    for name, offer in offers.items():
        more = with_estimates(table, offer)
        if now <= 0 or more is None:
            continue
        try:
            other, best = problem_for(more, budget, settings)
        except MpqError:  # a limit that lacks a cost for these schemes
            continue
        ratio = other.error(best.choice) / now
        found += [Richer(name, ratio)] if ratio <= _WINS else []
    return sorted(found, key=lambda each: each.ratio)


def with_estimates(table: Sensitivity, offer: Offer) -> Sensitivity | None:
    """The table with an estimated error for each scheme of an offer that a layer has no value for; None if there is none to add."""
    errors: dict[tuple[str, Scheme], Errors] = {}
    candidates = dict(table.header.candidates)
    for layer in table.layers:
        known = _ratios(table, layer)
        new = [scheme for scheme in offer.get(layer.name, ()) if scheme not in candidates[layer.name]] if known else []
        for scheme in new:
            own = squared_error(scheme, layer.matrix[1])
            places, logarithms = np.array(known).T
            errors[layer.name, scheme] = np.array([own * math.exp(float(np.interp(math.log(own), places, logarithms)))])
        candidates[layer.name] = (*candidates[layer.name], *new)
    if not errors:
        return None
    means: dict[tuple[str, Scheme], Errors] = {pair: np.array([table.mean(*pair)]) for pair in table.errors}
    header = replace(table.header, candidates=candidates)
    return Sensitivity(header, means | errors, table.path, finish={"parts": table.header.data.get("parts")}, first_line=table.first_line)


def _ratios(table: Sensitivity, layer: Layer) -> list[tuple[float, float]]:
    """Logarithms of the squared error of each measured scheme, ascending, and of the layer's error over it."""
    found: dict[float, float] = {}
    for scheme in table.header.candidates[layer.name]:
        error = 0.0 if scheme.is_float else table.mean(layer.name, scheme)
        if error > 0 and math.isfinite(error):
            own = squared_error(scheme, layer.matrix[1])
            found[math.log(own)] = math.log(error / own)
    return sorted(found.items())


def squared_error(scheme: Scheme, columns: int) -> float:
    """The mean squared error of normally distributed weights of variance 1 under a scheme, with the best scale for each group.

    Args:
        scheme: with scales.
        columns: weights in a row.
    """
    if scheme.is_coded:
        return float(_ENTROPY_CODED * 2 ** (-2 * scheme.rate))
    return _squared_error(scheme.format, scheme.symmetric, min(scheme.group_size or columns, columns))


@lru_cache(maxsize=512)
def _squared_error(format_name: str, symmetric: bool, group: int) -> float:
    element = Scheme(format_name, symmetric=symmetric).element
    values = np.random.default_rng(0).standard_normal((max(4, _VALUES // group), group))
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    largest = np.maximum(-low, high)
    least = np.full(len(values), np.inf)
    for share in _SCALES[: len(_SCALES) // (1 if symmetric else 2)]:
        if not symmetric:
            steps = 2**element.bits - 1
            scale = np.maximum((high - low) * share / steps, 1e-12)
            zero = np.round(-low * share / scale)
            rounded = (np.clip(np.round(values / scale) + zero, 0, steps) - zero) * scale
        else:
            levels = _levels(element)
            scale = np.maximum(largest, 1e-12) * share / np.abs(levels).max()
            places = np.searchsorted((levels[1:] + levels[:-1]) / 2, values / scale)
            rounded = levels[places] * scale
        least = np.minimum(least, np.square(rounded - values).mean(1))
    return float(least.mean())


def _levels(element: Format) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Ascending levels in units of the scale."""
    if element.kind == "integers":
        return np.arange(-(2 ** (element.bits - 1)), 2 ** (element.bits - 1), dtype=np.float64)
    return np.unique([level for level in element.levels if math.isfinite(level)])
