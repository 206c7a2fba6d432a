"""Shell completion: names from the registries, layers and schemes from the files in use. Nothing here may fail or print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from mpq.errors import MpqError
from mpq.formats.registry import formats

Found = list[tuple[str, str]]
_BITS = ("2", "3", "4", "5", "6", "7", "8", "16", "2..8", "4,8,16", "fine")


def named(words: Mapping[str, str], *more: str) -> Callable[[str], Found]:
    """Completes the names of a registry, each with its description; `more` are additional names."""
    found = {**dict.fromkeys(more, ""), **words}
    return lambda incomplete: [(name, text) for name, text in found.items() if name.startswith(incomplete)]


def layer_of_plan(ctx: typer.Context, incomplete: str) -> list[str]:
    """Layers of the plan given earlier on the command line."""
    return _starting(_plan_layers(ctx.params.get("plan")), incomplete)


def layer_of_analysis(ctx: typer.Context, incomplete: str) -> list[str]:
    """Layers of the analysis on the command line, or of the only one in this folder."""
    return _starting(_candidates(ctx), incomplete)


def pin(ctx: typer.Context, incomplete: str) -> list[str]:
    """LAYER=SCHEME: layers of the analysis, then the schemes that were measured for the layer."""
    known = _candidates(ctx)
    layer, mark, scheme = incomplete.rpartition("=")
    if not mark:
        return [f"{name}=" for name in _starting(known, incomplete)]
    return [f"{layer}={each}" for each in _starting(known.get(layer, _all(known)), scheme)]


def schemes_of_layers(ctx: typer.Context, incomplete: str) -> list[str]:
    """LAYER=SCHEME,SCHEME: like `pin`, with several schemes."""
    begun, mark, _ = incomplete.rpartition(",")
    if not mark or "=" not in begun:
        return pin(ctx, incomplete)
    layer, _, given = begun.partition("=")
    rest = [each for each in _candidates(ctx).get(layer, _all(_candidates(ctx))) if each not in given.split(",")]
    return [f"{begun},{each}" for each in _starting(rest, incomplete[len(begun) + 1 :])]


def scheme(ctx: typer.Context, incomplete: str) -> list[str]:
    """A scheme that the analysis has measured, or a format."""
    return _starting([*_all(_candidates(ctx)), *formats()], incomplete)


def candidates(incomplete: str) -> list[str]:
    """Bits, ranges and formats, separated by commas; the last one is completed."""
    begun, mark, last = incomplete.rpartition(",")
    return [f"{begun}{mark}{each}" for each in _starting([*_BITS, *formats()], last) if each not in begun.split(",")]


def _starting(known: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(known) if name.startswith(incomplete)]


def _all(known: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    return (scheme for schemes in known.values() for scheme in schemes)


def _plan_layers(path: Any) -> list[str]:
    with suppress(MpqError, OSError):
        from mpq.records.plan import read_plan

        return list(read_plan(Path(str(path or "plan.yaml"))).layers)
    return []


def _candidates(ctx: typer.Context) -> dict[str, tuple[str, ...]]:
    """The schemes of each layer, from the first line of the analysis."""
    with suppress(MpqError, OSError):
        from mpq.cli.find_inputs import only_analysis
        from mpq.records.sensitivity_file import header_line
        from mpq.records.sensitivity_header import header_in

        path = Path(str(ctx.params.get("sensitivity") or only_analysis(Path())))
        with path.open("rb") as file:
            header = header_in(header_line(file.readline(), str(path)), path)
        return {name: tuple(map(str, schemes)) for name, schemes in header.candidates.items()}
    return {}
