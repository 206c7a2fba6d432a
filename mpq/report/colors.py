"""Colors of schemes: light for few bits, dark for many, in an order that also works on a dark page and for color blindness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mpq.formats.scheme import Scheme

Rgb = tuple[int, int, int]
LIGHT: tuple[Rgb, ...] = ((178, 226, 205), (86, 184, 186), (45, 122, 178), (58, 70, 148), (48, 25, 88))
DARK: tuple[Rgb, ...] = ((30, 84, 86), (38, 138, 146), (88, 162, 226), (168, 178, 255), (236, 226, 255))
HEAT_LIGHT = ("#fffdf8", "#fff6e3", "#ffeac4", "#ffd99c", "#ffc173", "#fba356", "#ee7d3f", "#c94a26", "#a12d20", "#741a1c")
HEAT_DARK = ("#1d1f23", "#2a2320", "#3b281e", "#50301f", "#69381f", "#874221", "#a84f25", "#e0743a", "#f59e5b", "#ffcf8f")
"""Colors of errors, the least first, on a light and on a dark page."""


def ordered(schemes: Iterable[Scheme]) -> list[Scheme]:
    """Schemes from few bits to many, a finer group after a coarser one."""
    return sorted(set(schemes), key=lambda s: (s.rate, not s.symmetric, -(s.group_size or 1 << 40), s.small_scales, s.format))


def ramp(count: int, stops: Sequence[Rgb]) -> list[str]:
    """`count` colors at equal steps along `stops`, as #rrggbb."""
    return [_mixed(stops, 0.5 if count == 1 else index / (count - 1)) for index in range(count)]


def _mixed(stops: Sequence[Rgb], place: float) -> str:
    at = place * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    return "#" + "".join(f"{round(a + (b - a) * (at - low)):02x}" for a, b in zip(stops[low], stops[low + 1], strict=True))
