"""Reads the texts of `mpq search` options that name layers, schemes and numbers. No torch."""

from __future__ import annotations

from mpq.errors import UsageError


def pairs(texts: list[str] | None, form: str, example: str) -> dict[str, str]:
    """NAME=VALUE strings as a mapping; `form` is for example "--pin PATTERN=SCHEME"."""
    option, shape = form.split(" ")
    found: dict[str, str] = {}
    for text in texts or ():
        name, mark, value = text.rpartition("=")
        if not mark or not name or not value:
            raise UsageError(f"{option} '{text}' is not {shape}: write for example {option} {example}")
        found[name] = value
    return found


def parts(text: str) -> tuple[str, ...]:
    """The parts of a text between commas, without blanks."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(texts: dict[str, str]) -> dict[str, float]:
    """The numbers of --cost by file.

    Raises:
        UsageError: if one is not a number.
    """
    found: dict[str, float] = {}
    for name, text in texts.items():
        try:
            found[name] = float(text)
        except ValueError as error:
            raise UsageError(f"--cost '{name}={text}': {text} is not a number: write for example --cost latency.csv=3.2") from error
    return found


def ties(texts: list[str] | None) -> tuple[tuple[str, ...] | str, ...]:
    """The groups of --tie, each the names of at least two layers, or "auto".

    Raises:
        UsageError: if a group is smaller.
    """
    groups = tuple("auto" if text == "auto" else parts(text) for text in texts or ())
    short = next((text for text, group in zip(texts or (), groups, strict=True) if group != "auto" and len(group) < 2), None)
    if short is not None:
        raise UsageError(f"--tie '{short}' names fewer than two layers: write for example --tie layer.q,layer.k,layer.v, or --tie auto")
    return groups
