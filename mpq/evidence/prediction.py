"""Predictions of a whole plan's error from a sensitivity table. No torch.

additive      the sum of single-layer errors: correct if the layers' effects on the output are uncorrelated
interactions  that sum plus 2 E[v w] for each pair of layers, from their signed values (method "fisher"): correlated effects add up or
cancel

The signed values of a (layer, scheme) pair are first scaled to its error, which is known better than E[v^2]. Two pairs then have a
correlation c, with noise s^2 estimated from the values. Among thousands of such c there are few real effects, so each c is shrunk according
to the whole table (empirical Bayes, Morris 1983): it is multiplied by t / (t + s^2), where t is the mean of c^2 - s^2, at least zero. If
there is only noise, the prediction is the plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Sensitivity

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
_ROWS = 512  # entries of the interaction matrix in memory at a time
_JUDGED = 256


def additive(table: Sensitivity, schemes: Mapping[str, Scheme]) -> float:
    """The sum of the single-layer errors."""
    return math.fsum(table.mean(name, scheme) for name, scheme in schemes.items())


def unseen_rows(table: Sensitivity, schemes: Mapping[str, Scheme]) -> float | None:
    """The error that rows of embedding tables without calibration data add to a prediction; None without such tables."""
    known = (table.finish or {}).get("unseen_rows", {})
    found = [float(facts["adds"][str(schemes[name])]) for name, facts in known.items() if str(schemes.get(name)) in facts["adds"]]
    return math.fsum(found) if found else None


def interactions(table: Sensitivity, schemes: Mapping[str, Scheme]) -> float | None:
    """The error with interactions; None if the table has no signed values for some layer."""
    pairs = list(schemes.items())
    if not pairs or any(pair not in table.products for pair in pairs):
        return None
    products = np.stack([table.products[pair] for pair in pairs])
    errors = np.array([table.mean(*pair) for pair in pairs])
    return additive(table, schemes) + math.fsum(
        float(rows.sum()) for rows in covariances(products, errors, np.arange(len(pairs)), signal_of(table))
    )


def interactions_help(table: Sensitivity) -> bool:
    """Whether whole plans were predicted better with interactions, in rank and in spread, in the analysis's self-check."""
    check = (table.finish or {}).get("check", {})
    alone, together = check.get("additive", {}), check.get("interactions", {})
    figures = [found.get(name) for found in (alone, together) for name in ("rank", "spread")]
    return all(figure is not None for figure in figures) and figures[2] >= figures[0] and figures[3] < figures[1]


def signal_of(table: Sensitivity) -> float:
    """The mean square of true correlations between the signed values of different layers, estimated from some pairs of the table."""
    wanted = [pair for pair in table.products if pair[1] in table.header.candidates.get(pair[0], ())]
    pairs = wanted[:: max(1, -(-len(wanted) // _JUDGED))]
    names = list(dict.fromkeys(name for name, _ in pairs))
    groups = np.array([names.index(name) for name, _ in pairs])
    apart = groups[:, None] != groups[None, :]
    means, noise = _correlations(units := _units(np.stack([table.products[pair] for pair in pairs])), units)
    return max(0.0, float((np.square(means) - noise)[apart].mean())) if apart.any() else 0.0


def covariances(products: Matrix, errors: Vector, groups: Integers, signal: float) -> Iterator[Matrix]:
    """E[v w] of any two rows of `products` scaled to their errors, shrunk according to its noise; zero within a group.

    Args:
        products: signed values, [rows, draws].
        errors: the error to which each row's mean square is scaled, [rows].
        groups: the group of each row, [rows]; a plan uses one row of each group.
        signal: mean square of true correlations.

    Yields:
        Consecutive blocks of rows of the symmetric matrix: [block, rows].
    """
    units = _units(products)
    scales = np.sqrt(np.where(np.isfinite(errors), np.maximum(errors, 0.0), 0.0))
    for start in range(0, len(products), _ROWS):
        part = slice(start, start + _ROWS)
        means, noise = _correlations(units[part], units)
        kept = np.where(groups[part, None] != groups[None, :], signal / np.maximum(signal + noise, 1e-300), 0.0)
        yield means * kept * scales[part, None] * scales[None, :]


def _units(products: Matrix) -> Matrix:
    """Rows scaled to a mean square of one."""
    found: Matrix = products / np.sqrt(np.maximum(np.square(products).mean(1), 1e-300))[:, None]
    return found


def _correlations(rows: Matrix, others: Matrix) -> tuple[Matrix, Matrix]:
    """The mean products of values with unit mean square, and the variances of these means."""
    draws = rows.shape[1]
    means: Matrix = rows @ others.T / draws
    noise: Matrix = np.maximum(np.square(rows) @ np.square(others).T / draws - np.square(means), 0.0) / max(1, draws - 1)
    return means, noise


@dataclass(frozen=True)
class Quality:
    """How well predictions agree with measurements of whole plans.

    Args:
        rank: Spearman's rank correlation.
        bias: mean of ln(predicted / measured): negative when predictions are too small.
        spread: standard deviation of the same.
    """

    rank: float
    bias: float
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, rounded; values that are not finite are null."""
        return {name: round(value, 4) if math.isfinite(value) else None for name, value in vars(self).items()}


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's correlation of the ranks of two lists of values of one length, equal values in their order; 1 for a single pair."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(one) > 1 else 1.0


def quality(predicted: Sequence[float], measured: Sequence[float]) -> Quality:
    """Compare predictions with measurements; pairs that are not positive and finite are left out."""
    pairs = [(p, m) for p, m in zip(predicted, measured, strict=True) if p > 0 and m > 0 and math.isfinite(p) and math.isfinite(m)]
    if len(pairs) < 2:
        return Quality(math.nan, math.nan, math.nan)
    ratios = np.log([p / m for p, m in pairs])
    return Quality(rank_correlation(*zip(*pairs, strict=True)), float(ratios.mean()), float(ratios.std()))
