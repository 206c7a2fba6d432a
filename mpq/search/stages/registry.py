"""The stages by name: every module of this package that defines a `Stage`. No torch."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

from mpq.search import stages
from mpq.search.stages.base import Stage


def stage_kinds() -> list[type[Stage]]:
    """All stages in their order."""
    modules = [import_module(f"{stages.__name__}.{found.name}") for found in pkgutil.iter_modules(stages.__path__)]
    kinds = [kind for module in modules for kind in vars(module).values() if _is_stage(kind) and kind.__module__ == module.__name__]
    return sorted(kinds, key=lambda kind: (kind.place, kind.name))


def _is_stage(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Stage) and not inspect.isabstract(value)
