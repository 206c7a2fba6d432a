"""Microscaled formats (OCP Microscaling 1.0): small floating-point numbers times a power of two per 32 weights, stored in 8 bits (e8m0).

A search starts from the exponent in the specification and tries its neighbors.
"""

from __future__ import annotations

from mpq.formats.base import Format
from mpq.formats.minifloats import minifloat_levels

FORMATS = (
    Format(
        "mxfp4",
        4,
        "levels",
        "fp4-e2m1 with a power of two per 32 weights, stored in 8 bits",
        levels=tuple(minifloat_levels(2, 1)),
        clip_ratios=(2.0, 0.5),
        start="exponent",
        fixed_group=32,
        free_groups="fp4-e2m1",
        exponent_scales=True,
    ),
)
