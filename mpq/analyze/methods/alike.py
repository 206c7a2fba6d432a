"""Whether samples give the same values together and alone, so that the samples of a batch do not influence each other."""

from __future__ import annotations

from torch import Tensor

from mpq.formats.scheme import Scheme

Products = dict[tuple[str, Scheme], Tensor]
"""Per pair float64 [samples, draws, 2]: v, and the sum over rows of the squares of their parts of it. One sample where a batch cannot
be cut; a pair that no gradient reached is left out."""


def alike(expected: Products, found: Products, tolerance: float) -> bool:
    """Whether the values agree, relative to the largest of a layer; v may be small by chance, so that of a layer is at least its rows'."""
    if expected.keys() != found.keys():
        return False
    sizes: dict[str, float] = {}
    for (name, _), own in expected.items():
        sizes[name] = max(sizes.get(name, 0.0), float(own[..., 0].norm()), float(own[..., 1].sum()) ** 0.5)
    for key, own in expected.items():
        size, (v, squares) = sizes[key[0]], ((own - found[key])[..., place] for place in (0, 1))
        if float(v.norm()) > tolerance * size or float(squares.norm()) > 2 * tolerance * size**2:
            return False
    return True
