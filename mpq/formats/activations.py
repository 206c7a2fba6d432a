"""Formats of tensors between layers. No torch."""

from __future__ import annotations

from mpq.formats.scheme import Scheme

STATIC, DYNAMIC = "a8", "a8d"
LEVELS = 255  # the largest code of `a8`
MIDDLE = 128  # the code of 0 in a range around 0
CHOICES = {"8": STATIC, "8d": DYNAMIC}  # as the command line names them
ALL, OFF = "all", "off"  # which of the measured groups a plan has


def is_integer_product(scheme: Scheme) -> bool:
    """Whether runtimes multiply weights of this scheme as integers: one scale per row, no zero point."""
    return scheme.is_integer and scheme.symmetric and scheme.group_size is None
