"""The panel of `--help` that shows an option. The options that most people use are in the first one, "Options"."""

from __future__ import annotations

from typing import Any

from typer.core import TyperOption

PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "analyze": {
        "Layers": ("targets", "ignore"),
        "What an error is": ("metric", "outputs"),
        "How it is measured": ("method", "held_out", "seed"),
        "Machines": ("workers", "part", "cache"),
    },
    "search": {
        "More limits": ("scope", "max_drop", "metric", "cost", "max_latency", "memory"),
        "What layers may use": ("target", "candidates", "min_bits", "tie", "uniform", "quantizer"),
        "How it is searched": ("timeout", "start", "seed", "storage", "status"),
    },
    "apply": {
        "Recovery": ("recovery", "sequential", "reconstruct", "tune", "own_text", "tune_work", "tune_minutes"),
        "Model": ("shards",),
    },
    "check": {
        "More limits": ("scope", "max_loaded", "max_loaded_packed", "baseline", "max_growth"),
        "Many files": ("budgets", "init"),
    },
    "eval": {"Model": ("plan",), "What an error is": ("outputs",)},
    "export": {"What is written": ("nearest", "symmetric", "allow_unfused", "compare")},
}
"""Parameters by command and panel; all others are in the panel that their own file names, else in "Options"."""


VALUES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "FILE"}
"""The placeholder of a value by its type, where an option does not name one."""


def arrange(command: str, params: list[Any]) -> None:
    """Set the panels and the value placeholders of a command's options, in place. Flags and arguments have no placeholder."""
    homes = {name: panel for panel, names in PANELS.get(command, {}).items() for name in names}
    for parameter in params:
        if not isinstance(parameter, TyperOption):
            parameter.display_type_rich = _nothing  # an argument's name and meaning say enough
            continue
        parameter.rich_help_panel = homes.get(parameter.name or "", parameter.rich_help_panel)
        without_value(parameter)
        if parameter.metavar is None:
            parameter.metavar = VALUES.get(parameter.bare_type())


def _nothing(ctx: Any) -> None:
    """In place of a type."""


def without_value(parameter: TyperOption | None) -> TyperOption | None:
    """The same option; if it is a flag, without a value placeholder."""
    if parameter is not None and parameter.is_flag:
        parameter.metavar = ""
    return parameter
