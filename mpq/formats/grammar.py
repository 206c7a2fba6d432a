"""The grammar of schemes for people and editors: a pattern and a description of all schemes, generated from the formats."""

from __future__ import annotations

import re
from typing import Any

from mpq.formats.coded import CODED_RATES
from mpq.formats.registry import formats


def scheme_pattern() -> str:
    """A regular expression (ECMA-262, as in JSON schemas) for all schemes in lower case, with optional spaces around them."""
    by_tail: dict[str, list[str]] = {}
    for name, found in formats().items():
        by_tail.setdefault(found.tail, []).append(re.escape(name).replace(r"\-", "-"))
    kinds = [f"({'|'.join(names)}){tail}" for tail, names in by_tail.items()]
    return rf"^\s*({'|'.join([*kinds, f'ec{CODED_RATES}'])})\s*$"


def scheme_schema() -> dict[str, Any]:
    """The JSON schema of a scheme."""
    every = formats().values()
    zero_points = ", ".join(each.name for each in every if each.zero_points)
    groups = ", ".join(each.name for each in every if each.kind == "levels" and each.fixed_group is None)
    whole = ", ".join(each.name for each in every if each.kind == "floats" or each.fixed_group is not None)
    return {
        "type": "string",
        "pattern": scheme_pattern(),
        "description": f"<format>[-asym][-gN][-s8]: {zero_points}, optionally with a zero point; {groups}; with N weights per scale and "
        f"scales of 8 bits; or {whole}; or ec<bits>, codes compressed to 1 to 8 bits per weight",
        "examples": ["int4", "int4-g32", "int4-g16-s8", "int8-asym", "fp16", "ec4.5"],
    }
