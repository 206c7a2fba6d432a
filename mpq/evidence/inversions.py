"""Inversions: a layer's error grows with more bits instead of falling. They are reported, never smoothed away. No torch.

If the difference is not significant, the two schemes are equally good for this layer. If it is, the finer scheme is really worse here,
because rounding errors happen to cancel under the coarser one, or because its clipping differs.
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
    """Two neighboring candidates, of which the one with more bits has the larger error.

    Args:
        layer: its name.
        fewer: the scheme of fewer bits.
        more: the next candidate by size.
        errors: their mean errors on the samples measured for both.
        beyond_noise: whether the paired difference exceeds two standard errors.
    """

    layer: str
    fewer: Scheme
    more: Scheme
    errors: tuple[float, float]
    beyond_noise: bool


def inversions(table: Sensitivity) -> Iterator[Inversion]:
    """The inversions of a table, layer by layer; candidates without a finite error are left out."""
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
    """A table's inversions for people: one line, or none."""
    found = list(inversions(table))
    if not found:
        return []
    real = sorted((one for one in found if one.beyond_noise), key=lambda one: one.errors[0] - one.errors[1])
    shown = [f"{one.layer} {one.fewer} {one.errors[0]:.3g}, {one.more} {one.errors[1]:.3g}" for one in real[:_SHOWN]]
    more = [f"and {len(real) - _SHOWN} more"] if len(real) > _SHOWN else []
    steps = f"more bits but a larger error: {len(found)} pair{'s' if len(found) > 1 else ''} of candidates, {len(real)} significant"
    return [steps + (f" ({'; '.join([*shown, *more])})" if real else "")]
