"""Formats numbers for the report."""

from __future__ import annotations

import math

from mpq.shown import ZERO_MARK, is_rounded_zero

MINUS, TIMES, UNKNOWN = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def size(count: float) -> str:
    """Bytes in decimal units with three or four digits: "184.3 kB"; small counts in full."""
    for unit, factor in _UNITS:
        if abs(count) >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count:.0f} bytes"


def signed_size(count: float) -> str:
    """`size` with its sign."""
    return f"{MINUS if count < 0 else '+'}{size(abs(count))}"


def figure(value: float | None) -> str:
    """A value with four significant digits; "∞" if an output was not finite, a dash if unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞"
    if is_rounded_zero(value):
        return ZERO_MARK
    text = f"{value:.4g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.2e}".replace("e-0", "e-")
    return text.replace("-", MINUS) if value < 0 and "e" not in text else text


def short(value: float | None) -> str:
    """A value with two significant digits, for a narrow cell: "1.2e-3"."""
    if value is None or not math.isfinite(value):
        return figure(value)
    if value == 0 or is_rounded_zero(value):
        return figure(value)
    return f"{value:.2g}" if 1e-2 <= abs(value) < 1e4 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def noise(stderr: float | None) -> str:
    """A standard error to follow its value; empty if there is none."""
    return "" if stderr is None or math.isnan(stderr) else f"±{stderr:.2g}".replace("e-0", "e-")


def either(value: float | None) -> str:
    """An integer in full, or any other value with four digits."""
    return f"{value:,}" if isinstance(value, int) else figure(value)


def share(part: float, whole: float) -> str:
    """A share in percent, one decimal below ten."""
    value = 100 * part / whole if whole else 0.0
    if abs(value) < 0.05:
        return "0.0%"
    return f"{value:.1f}%" if abs(value) < 9.95 else f"{value:.0f}%"


def change(after: float, before: float) -> str:
    """How much `after` differs from `before`, in percent, signed."""
    if not before or not math.isfinite(after / before):
        return UNKNOWN
    value = 100 * (after / before - 1)
    return f"{MINUS if value < 0 else '+'}{abs(value):.3g}%"


def power(exponent: int) -> str:
    """A power of ten for an axis: "0.01", or "10⁻⁵"."""
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else "10" + str(exponent).translate(_SUPERSCRIPTS)


def count(number: int, noun: str) -> str:
    """A number of things: "1 layer", "2,000 layers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
