"""Candidates: the schemes that each layer may use.

"4", "8", "16" and "32" are bits: 16 is the layer's own 16-bit format (fp16 for fp32 unless a weight would overflow), 2 to 7
bits come with one scale per row and with every group size of `GROUP_SIZES` that divides the row. "2..8" is a range of bits.
"fine" is `FINE`: the best quality at a given size, but neither fast kernels nor most other tools support it. "coded" is `CODED`: the
smallest files, in which codes are compressed; in memory they take 8 bits. Anything else names one scheme, whose last group may be shorter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mpq.errors import SchemeError
from mpq.formats.registry import integers_by_bits
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.layer import Layer

GROUP_SIZES = (128, 64, 32)
FINE = (
    *(f"int2-g{group}-s8" for group in (16, 32)),  # normal levels gain nothing at two bits
    *(f"nl{bits}{groups}" for bits in range(3, 8) for groups in ("", "-g64-s8", "-g32-s8")),
)
CODED = tuple(f"ec{rate:g}" for rate in (2, 2.5, 3, 3.25, 3.5, 3.75, 4, 4.25, 4.5, 4.75, 5, 5.5, 6, 7, 8))
_WORDS = {"fine": FINE, "coded": CODED}


def expand(texts: Iterable[str]) -> list[str]:
    """Expands ranges, "fine" and "coded" and drops duplicates, for example ["2..4", "16"] -> ["2", "3", "4", "16"].

    Raises:
        SchemeError: if nothing is left, or a text is neither bits, nor a range, nor a scheme.
    """
    found: dict[str, None] = {}
    for text in texts:
        for part in filter(None, (p.strip() for p in text.split(","))):
            span = re.fullmatch(r"(\d+)\.\.(\d+)", part)
            if span and int(span[1]) > int(span[2]):
                raise SchemeError(f"'{part}' is an empty range of bits: write the smaller number first, for example 2..8")
            wanted = [str(bits) for bits in range(int(span[1]), int(span[2]) + 1)] if span else [*_WORDS.get(part, (part,))]
            for one in wanted:
                _check(one)
            found |= dict.fromkeys(wanted)
    if not found:
        raise SchemeError("no candidate schemes given: use for example --candidates 4,8,16")
    return list(found)


def candidates_for(layer: Layer, expanded: Iterable[str], sixteen: Callable[[Layer], str]) -> tuple[Scheme, ...]:
    """The schemes that `layer` may use, smallest first; `sixteen` names its 16-bit format."""
    found: dict[Scheme, None] = {}
    for text in expanded:
        found |= dict.fromkeys(_schemes(text, layer, sixteen))
    columns = layer.matrix[1]
    distinct: dict[tuple[str, int, bool, bool], Scheme] = {}
    for scheme in found:
        distinct.setdefault((scheme.format, scheme.groups(columns), scheme.symmetric, scheme.small_scales), scheme)
    return tuple(sorted(distinct.values(), key=lambda scheme: (scheme.stored_bits(layer.matrix), str(scheme))))


def _schemes(text: str, layer: Layer, sixteen: Callable[[Layer], str]) -> list[Scheme]:
    if not text.isdecimal():
        scheme = parse_scheme(text)
        if scheme.group_size is not None and scheme.group_size >= layer.matrix[1]:
            return [scheme.by_rows()]
        return [scheme]
    if text == "16":
        return [Scheme(sixteen(layer))]
    if text == "32":
        return [Scheme("fp32" if layer.dtype == "float32" else sixteen(layer))]
    columns, whole = layer.matrix[1], Scheme(integers_by_bits()[int(text)])
    groups = [size for size in GROUP_SIZES if size < columns and columns % size == 0] if int(text) < 8 else []
    return [whole, *(Scheme(whole.format, size) for size in groups)]


def _check(text: str) -> None:
    if text.isdecimal():
        known = sorted(integers_by_bits())
        if int(text) not in (*known, 16, 32):
            raise SchemeError(f"'{text}' bits is not a candidate: use {known[0]} to {known[-1]}, 16 or 32, or a scheme such as int4-g128")
    else:
        parse_scheme(text)
