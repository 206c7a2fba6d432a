"""Measures the largest errors that gradients predict, and scales them to what is measured.

The second-order expansion is right for small changes and overstates large ones. On stories9m, it predicts the error of the embedding, which
is tied to the head, within 1% at int8, but 1.8 times too large at int4-g32 and 8 times too large at int3; that of most other layers is
within 10%. A few such pairs of layer and scheme are most of the error of a plan, so they are measured: those with a noticeable share of the
error of a plan like those of the self-check. Plans change with the scales, so this is repeated until no new pair is found.

A scale is the measured error over the predicted one on the same samples, shrunk towards one by its standard error (James and Stein 1961),
which is zero where all samples of the table were measured.
The pairs depend only on the table, so a resumed analysis measures the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from mpq.analyze.methods.base import Context
from mpq.analyze.selfcheck import random_plans
from mpq.evidence.prediction import additive
from mpq.formats.scheme import Scheme
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.shown import counted

Pair = tuple[str, Scheme]
MOST_PAIRS = 16
_SAMPLES = 32
_FEWEST = 4  # samples; the standard error of fewer is not to be trusted
_SHARE = 0.04  # of a plan's error
_ROUNDS = 4
_SIZES = (0.03, 0.12, 0.25, 0.4)  # positions of the plans between the smallest and the largest one
_PLANS = 12
_CLOSE = 0.1  # scales nearer to one are not named
_NAMED = 3


def measure_large(context: Context) -> None:
    """Measure the pairs with the largest shares of the errors of plans, and record the scales of their errors."""
    first = context.prepared.first
    some = first.spread(_SAMPLES)
    if some.samples < _FEWEST:
        return
    reference = Reference(context.model.module, some, context.prepared.metric, offload=context.model.offload)
    places = first.spread_places(_SAMPLES)

    def measured(pair: Pair) -> Tensor:
        return reference.errors(context.variants.weights(dict([pair])))

    for _ in range(_ROUNDS):
        if not (pairs := large_pairs(context.table)):
            break
        found = context.ranks.each(len(pairs), partial(_nth, measured, pairs), pack=_packed, unpack=_unpacked)
        for pair, errors in zip(pairs, found, strict=True):
            scale = scale_of(context.table.errors[pair][places], errors.numpy(), whole=first.samples)
            context.record([{"layer": pair[0], "scheme": str(pair[1]), "scale": scale}])
            context.on_progress(len(context.table.scales), MOST_PAIRS, "large errors")
    context.cost["scale_passes"] = reference.forwards
    context.notes += scale_lines(context.table, some.samples)


def large_pairs(table: Sensitivity) -> list[Pair]:
    """Pairs that have no scale yet and a noticeable share of the error of a plan, those with the largest shares first."""
    shares: dict[Pair, float] = {}
    for plan in random_plans(table, seed=int(table.header.data["seed"]), count=_PLANS, shares=_SIZES):
        whole = additive(table, plan)
        for pair in plan.items() if 0 < whole < math.inf else ():
            shares[pair] = max(shares.get(pair, 0.0), table.mean(*pair) / whole)
    found = [pair for pair, share in shares.items() if share >= _SHARE and pair in table.rows and pair not in table.scales]
    return sorted(found, key=lambda pair: -shares[pair])[: max(0, MOST_PAIRS - len(table.scales))]


def scale_of(predicted: Errors, measured: Errors, whole: int) -> float:
    """Measured over predicted errors of the same samples, shrunk towards one by its standard error; one where it is not finite.

    Args:
        predicted: [samples].
        measured: [samples].
        whole: number of samples that the scale stands for; the less these are of them, the larger its standard error.
    """
    mean = float(predicted.mean())
    if not (mean > 0 and np.isfinite(measured).all() and np.isfinite(predicted).all()):
        return 1.0
    ratio = float(measured.mean()) / mean
    others = math.sqrt(max(0.0, 1 / len(measured) - 1 / whole))
    noise = float((measured - ratio * predicted).std(ddof=1)) * others / mean
    kept = max(0.0, 1 - (noise / (ratio - 1)) ** 2) if ratio != 1 else 0.0
    return float(f"{1 + (ratio - 1) * kept:.4g}")


def scale_lines(table: Sensitivity, samples: int) -> list[str]:
    """A line on the scales that are not close to one, for people; none if all are."""
    far = sorted((scale, name, str(scheme)) for (name, scheme), scale in table.scales.items() if abs(scale - 1) > _CLOSE)
    if not far:
        return []
    named = ", ".join(f"{name} {scheme} times {scale:.2g}" for scale, name, scheme in far[:_NAMED])
    more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
    errors = f"the {counted(len(table.scales), 'largest error', 'largest errors')} were measured on {samples} samples"
    return [f"gradients misjudge large changes, so {errors} and corrected: {named}{more}"]


def _nth(measured: Callable[[Pair], Tensor], pairs: Sequence[Pair], unit: int) -> Tensor:
    return measured(pairs[unit])


def _packed(errors: Tensor) -> bytes:
    return save({"errors": errors.contiguous()})


def _unpacked(data: bytes) -> Tensor:
    return load(data)["errors"]
