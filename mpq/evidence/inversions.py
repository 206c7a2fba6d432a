"""Inversions: steps to more bits with which a layer's error grows instead of falling. They are told, never smoothed away. No torch.

Within noise they say that two schemes are alike for this layer; beyond noise that the finer one is really worse here, since rounding errors
happen to cancel under the coarser one, or since its clipping differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Sensitivity, standard_error

_BEYOND = 2.0  # standard errors of the paired difference
_SHOWN = 3


@dataclass(frozen=True)
class Inversion:
    """One step to more bits that costs error.

    Args:
        layer: its name.
        fewer: the scheme of fewer bits.
        more: the next candidate by size.
        errors: their mean errors on the samples that both have.
        beyond_noise: whether the paired difference exceeds two standard errors.
    """

    layer: str
    fewer: Scheme
    more: Scheme
    errors: tuple[float, float]
    beyond_noise: bool


def inversions(table: Sensitivity) -> Iterator[Inversion]:
    """The inversions of a table, layer by layer; candidates without a finite figure are left out."""
    for layer in table.layers:
        found = [scheme for scheme in table.header.candidates[layer.name] if (layer.name, scheme) in table.errors]
        for fewer, more in pairwise(sorted(found, key=lambda scheme: (scheme.stored_bits(layer.matrix), str(scheme)))):
            count = min(table.count(layer.name, fewer), table.count(layer.name, more))
            coarse, fine = (table.errors[layer.name, scheme][:count] for scheme in (fewer, more))
            change = fine - coarse
            if change.mean() > 0:  # False for NaN
                beyond = count > 1 and float(change.mean()) > _BEYOND * standard_error(change)
                yield Inversion(layer.name, fewer, more, (float(coarse.mean()), float(fine.mean())), beyond)


def inversion_lines(table: Sensitivity) -> list[str]:
    """What there is to say of a table's inversions, for people: nothing, or one line."""
    found = list(inversions(table))
    if not found:
        return []
    real = sorted((one for one in found if one.beyond_noise), key=lambda one: one.errors[0] - one.errors[1])
    shown = [f"{one.layer} {one.fewer} {one.errors[0]:.3g}, {one.more} {one.errors[1]:.3g}" for one in real[:_SHOWN]]
    more = [f"and {len(real) - _SHOWN} more"] if len(real) > _SHOWN else []
    steps = f"more bits but a larger error: {len(found)} step{'s' if len(found) > 1 else ''} between candidates, {len(real)} beyond noise"
    return [steps + (f" ({'; '.join([*shown, *more])})" if real else "")]
