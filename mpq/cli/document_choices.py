"""All names that a user may choose from as Markdown, from their registries: python -m mpq.cli.document_choices > docs/choices.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mpq.analyze.methods.registry import METHODS
from mpq.export.registry import TARGETS
from mpq.formats.base import Format
from mpq.formats.registry import formats
from mpq.models.running.metric_registry import METRICS
from mpq.tensors.quantizers.registry import QUANTIZERS

_HEAD = """\
# Formats, quantizers, metrics, methods, targets

Written by `python -m mpq.cli.document_choices > docs/choices.md` from the registries; a test keeps it up to date.

## Formats

A scheme is `<format>[-asym][-gN][-s8]`, for example `int4-g128`: a format, optionally with a zero point, one scale per N weights of a row
instead of one per row, and scales of 8 bits. [File formats](formats.md) says how each is stored. The last column is the size of the codes
alone.

| format | may have | values | bits per weight |
|---|---|---|---|
"""
_LISTS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("Quantizers", "how codes are chosen: `mpq analyze --quantizer NAME`", QUANTIZERS),
    ("Metrics", "the error at the output: `mpq analyze --metric NAME`", METRICS),
    ("Methods", "how sensitivities are found: `mpq analyze --method NAME`", METHODS),
    ("Targets", "what other programs load: `mpq export --to NAME`", TARGETS),
)
_CODED = """
| `ec1` to `ec8` |  | whole numbers, compressed to a rate with up to two decimals, such as `ec4.5`; [more](method/coded.md) | 1 to 8 |
"""
_CODES = 840  # weights whose codes fill whole bytes at any number of bits


def page() -> str:
    """The whole page."""
    return _HEAD + "\n".join(_row(found) for found in formats().values()) + _CODED + "".join(_section(*each) for each in _LISTS)


def _row(element: Format) -> str:
    options = [text for text, may in (("-asym", element.zero_points), ("-gN", _grouped(element)), ("-s8", _grouped(element))) if may]
    bits = element.bits if element.storage is not None else 8 * element.code_bytes(_CODES) / _CODES
    return f"| `{element.name}` | {' '.join(f'`{text}`' for text in options)} | {element.summary} | {bits:g} |"


def _grouped(element: Format) -> bool:
    return element.storage is None and element.fixed_group is None


def _section(title: str, what: str, names: Mapping[str, str]) -> str:
    rows = "".join(f"| `{name}` | {words} |\n" for name, words in names.items())
    return f"\n## {title}\n\n{what[0].upper()}{what[1:]}.\n\n| name | what it is |\n|---|---|\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(page())
