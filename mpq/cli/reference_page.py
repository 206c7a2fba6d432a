"""The command-line reference as Markdown, from the texts of `--help`: python -m mpq.cli.reference_page > docs/cli.md."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from mpq.cli.main import app

_HEAD = """\
# Command line

Written by `python -m mpq.cli.reference_page > docs/cli.md` from the texts of `mpq COMMAND --help`; a test keeps it up to date.

Results go to stdout, messages and errors to stderr. `mpq --install-completion` sets up completion for your shell.
"""
_PLAIN = "Options"


def reference() -> str:
    """The whole page."""
    root: Any = get_command(app)
    root.name = "mpq"
    parts = [_HEAD, _section("## mpq", "mpq [OPTIONS] COMMAND …", root)]
    parts += [_section(f"## mpq {name}", _usage(name, command), command) for name, command in commands_of(root)]
    return "\n".join(parts)


def commands_of(group: Any) -> Iterator[tuple[str, Any]]:
    """All commands with their names; those of a group within it are called "GROUP COMMAND"."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in commands_of(command))
        else:
            yield name, command


def _usage(name: str, command: Any) -> str:
    arguments = [_argument(each) for each in command.params if each.param_type_name == "argument"]
    return " ".join(["mpq", name, *arguments, "[OPTIONS]"])


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _section(title: str, usage: str, command: Any) -> str:
    lines = [title, "", f"```text\n{usage}\n```", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        lines += [f"```bash\n{example}\n```" if example != text else text, ""]
    for panel, rows in _panels(command).items():
        lines += [f"| {panel} | |", "|---|---|", *(f"| {name} | {told} |" for name, told in rows), ""]
    return "\n".join(lines)


def _panels(command: Any) -> dict[str, list[tuple[str, str]]]:
    """Rows of name and meaning by panel, without hidden options: arguments, options without a panel, then the other panels."""
    found: dict[str, list[tuple[str, str]]] = {"Arguments": [], _PLAIN: []}
    for parameter in command.params:
        if parameter.hidden or parameter.name in ("install_completion", "show_completion"):
            continue
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or _PLAIN
        name = f"`{_argument(parameter)}`" if argument else ", ".join(_option(parameter))
        found.setdefault(panel, []).append((_cell(name), _cell(" ".join(_meaning(parameter)))))
    return {panel: rows for panel, rows in found.items() if rows}


def _option(parameter: Any) -> Iterator[str]:
    value = f" {parameter.metavar}" if parameter.metavar else ""
    yield from (f"`{text}{value if text == parameter.opts[0] else ''}`" for text in (*parameter.opts, *parameter.secondary_opts))


def _meaning(parameter: Any) -> Iterator[str]:
    yield parameter.help or ""
    default = parameter.default
    told = "[default:" in (parameter.help or "")
    if default not in (None, False, True, ()) and not callable(default) and not told:
        yield f"[default: {default}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
