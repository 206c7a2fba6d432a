"""One and two levels of magnitude: int1 is -1 or 1 (Rastegari et al. 2016), ternary -1, 0 or 1 (Ma et al. 2024).

Both start from the mean magnitude, because covering the whole range gives the largest error. Ternary codes are stored five to a byte.
"""

from __future__ import annotations

from mpq.formats.base import Format

FORMATS = (
    Format("int1", 1, "levels", "-1 and 1", levels=(-1.0, 1.0), start="mean"),  # codes do not depend on the scale, which the refit finds
    Format(
        "ternary",
        2,
        "levels",
        "-1, 0 and 1, five to a byte",
        levels=(-1.0, 0.0, 1.0),
        clip_ratios=tuple(0.5 + 0.075 * step for step in range(27)),
        start="mean",
        radix=3,
    ),
)
