"""Settings as typed keywords of `mpq.analyze(...)` and `mpq.search(...)`. No torch.

The classes tell type checkers and editors which keywords exist; `settings_from` (config.py) turns them into settings. A test compares them
with the fields of the settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, TypedDict, TypeVar

from mpq.formats.scheme import Scheme


class AnalysisChoices(TypedDict, total=False):
    """The fields of `AnalysisSettings` as keywords; a single string or number stands for a sequence of one."""

    candidates: Sequence[str | int] | str | int
    targets: Sequence[str] | str
    ignore: Sequence[str] | str
    metric: str
    outputs: Sequence[str] | str
    quantizer: str
    method: str
    held_out: float
    seed: int
    activations: Sequence[str | int] | str | int
    equalize: bool


class SearchChoices(TypedDict, total=False):
    """The fields of `SearchSettings` as keywords; schemes may be given as strings."""

    pins: Mapping[str, Scheme | str]
    ties: Sequence[Sequence[str] | str] | str
    min_bits: Mapping[str, int]
    candidates: Mapping[str, Sequence[str | int] | str | int]
    costs: Mapping[str, float]
    memory: str | None
    start: Mapping[str, Scheme] | None
    trials: int
    timeout: float | None
    seed: int
    storage: Any
    rest: str | None
    activations: str | float
    sketches: bool


Function = TypeVar("Function", bound=Callable[..., Any])
_ENTRY = re.compile(r"^    \*\*choices: .*\n(?:     .*\n)*", re.MULTILINE)


def spelled_out(settings: type[Any], choices: type[Any]) -> Callable[[Function], Function]:
    """A decorator for a function with `**choices`: `help()` and completion show each keyword with its default and description.

    Args:
        settings: the dataclass of settings, whose docstring has a line for each field.
        choices: the typed keywords.
    """

    def decorate(function: Function) -> Function:
        found = inspect.signature(function)
        kept = [each for each in found.parameters.values() if each.kind is not each.VAR_KEYWORD]
        function.__signature__ = found.replace(parameters=[*kept, *_keywords(settings, choices)])  # type: ignore[attr-defined]
        function.__doc__ = _ENTRY.sub(lambda _: _entries(settings), inspect.getdoc(function) or "")
        return function

    return decorate


def _keywords(settings: type[Any], choices: type[Any]) -> Iterator[inspect.Parameter]:
    for each in fields(settings):
        kind = choices.__annotations__[each.name]
        told = getattr(kind, "__forward_arg__", kind)
        yield inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=_default(each), annotation=told)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _entries(settings: type[Any]) -> str:
    """The lines about the fields in the docstring of the settings."""
    return (inspect.getdoc(settings) or "").partition("Args:\n")[2].rstrip() + "\n"
