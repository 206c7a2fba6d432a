"""Selecting names by patterns: an exact name, a glob, or a regular expression after "re:"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from mpq.errors import PatternError


def select(names: Sequence[str], patterns: Sequence[str], *, option: str) -> list[str]:
    """The `names` that match any of the `patterns`, each once, in the order of `names`.

    Args:
        names: the names to select from.
        patterns: a pattern that equals one of the names selects only that name; a pattern that starts with "re:" is a regular expression
            that must match the whole name; all others are globs, whose * also matches dots.
        option: the option with the patterns, for messages, for example "--targets".

    Raises:
        PatternError: if a pattern matches nothing, or is not a valid regular expression.
    """
    picked = {name for pattern in patterns for name in _matches(names, pattern, option)}
    return [name for name in dict.fromkeys(names) if name in picked]


def gathered(names: Sequence[str], values: Mapping[str, Sequence[str]], *, option: str) -> dict[str, set[str]]:
    """By name, all `values` of the patterns that match it; names that no pattern matches are left out.

    Raises:
        PatternError: as `select`.
    """
    found: dict[str, set[str]] = {}
    for pattern, texts in values.items():
        for name in select(names, [pattern], option=option):
            found.setdefault(name, set()).update(texts)
    return found


def _matches(names: Sequence[str], pattern: str, option: str) -> list[str]:
    if pattern in names:
        return [pattern]
    if pattern.startswith("re:"):
        expression = _compiled(pattern, option)
        found = [name for name in names if expression.fullmatch(name)]
    else:
        found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise PatternError(f"{option} '{pattern}' matches nothing: {_advice(names, pattern)}")
    return found


def _compiled(pattern: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise PatternError(f"{option} '{pattern}' is not a regular expression: {error}") from error


def _advice(names: Sequence[str], pattern: str) -> str:
    if not names:
        return "there are no layers to choose from"
    if any(name.startswith(f"{pattern}.") for name in names):
        return f"for everything inside it, write '{pattern}.*'"
    close = get_close_matches(pattern.removeprefix("re:"), names, n=3, cutoff=0.0)
    return f"the closest names are {', '.join(close)}" if len(close) > 1 else f"the only name is {close[0]}"
