"""The command line: one command per file, one place where errors become exit codes."""

from __future__ import annotations

import errno
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mpq.cli.console import voice
from mpq.cli.guard import guarded
from mpq.cli.panels import arrange, without_value
from mpq.distribution import DISTRIBUTION, HEAVY, VERSION
from mpq.errors import MpqError
from mpq.shown import one_line

INTERRUPTED = 130
_COMMANDS = (
    "compress",
    "analyze",
    "merge",
    "profile",
    "search",
    "apply",
    "recover",
    "check",
    "eval",
    "bench",
    "export",
    "verify",
    "push",
    "show",
    "report",
    "diff",
    "explain",
    "schema",
    "demo",
)
_HELP = {"help_option_names": ["-h", "--help"]}
_GROUPS = {
    "monitor": (
        "Watch a running model: has its data drifted from the calibration data?\n\n"
        "Example: mpq monitor check log.jsonl --against model.mpq.safetensors",
        ("baseline", "check", "recalibrate", "table", "dashboard"),
    ),
}


class Subcommands(TyperGroup):
    """Commands below one name."""

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, which takes no value."""
        return without_value(super().get_help_option(ctx))


class MpqGroup(Subcommands):
    """Turns an MpqError into one line on stderr and its exit code."""

    def get_params(self, ctx: Any) -> Any:
        """Its options, with those for completion, which typer adds after the group is made."""
        arrange("", found := super().get_params(ctx))
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names in the order of a way through; groups follow `verify`."""
        names = [name for name in super().list_commands(ctx) if name not in _GROUPS]
        place = names.index("verify") + 1
        return [*names[:place], *_GROUPS, *names[place:]]

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except MpqError as error:
            _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has closed the pipe, like `head`
                raise
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"{where}{error.strerror or error}; free some space or choose another place, then run the command again")
            raise typer.Exit(MpqError.exit_code) from error
        except ModuleNotFoundError as error:
            if error.name not in HEAVY:
                raise
            _complain(f"this needs {error.name}, which is not installed: pip install {DISTRIBUTION}")
            raise typer.Exit(MpqError.exit_code) from error
        except MemoryError as error:
            _complain("out of memory; use a machine with more memory, or a smaller file")
            raise typer.Exit(MpqError.exit_code) from error
        except KeyboardInterrupt as interrupt:
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # after the "^C" of the terminal
            resumes = ctx.invoked_subcommand in _RESUMABLE
            remedy = "what was measured is on disk; run the same command to continue" if resumes else "run the command again"
            _complain(f"interrupted; {remedy}")
            raise typer.Exit(INTERRUPTED) from interrupt


class MpqCommand(TyperCommand):
    """A command with its options grouped in panels. It also accepts the options' old names, which no page shows."""

    def __init__(self, name: str | None, **choices: Any) -> None:
        super().__init__(name, **choices)
        arrange(name or "", self.params)

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, which takes no value."""
        return without_value(super().get_help_option(ctx))

    def make_parser(self, ctx: Any) -> Any:
        """The parser of its arguments."""
        parser = super().make_parser(ctx)
        known = parser._long_opt
        known.update({old: known[new] for old, new in _OLD_NAMES.items() if new in known})
        return parser


_RESUMABLE = ("analyze", "compress", "search", "recover")
_OLD_NAMES = {"--model": "--builder"}


def _complain(message: str) -> None:
    """One line on stderr, after the traceback if that is wanted."""
    if voice.verbose:
        traceback.print_exc()
    sys.stderr.write(f"mpq: {one_line(message)}\n")


app = typer.Typer(
    cls=MpqGroup,
    name="mpq",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mpq {VERSION}\n")
        raise typer.Exit


@app.callback()
def root(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Mixed-precision quantization for PyTorch: the best format for each layer under a size limit.

    **mpq analyze** model.pt, then **mpq search** --budget 4.5bits, then **mpq apply** plan.yaml; **mpq check** plan.yaml in CI.

    Exit codes: 0 done, 1 a check failed, 2 usage or configuration, 3 any other error.
    """
    voice.quiet, voice.verbose = quiet, verbose


for _name in _COMMANDS:
    _module = import_module(f"mpq.cli.{_name}")
    app.command(_name, cls=MpqCommand)(guarded(_module.command))
for _group, (_help, _names) in _GROUPS.items():
    _made = typer.Typer(cls=Subcommands, name=_group, help=_help, no_args_is_help=True, rich_markup_mode="markdown", context_settings=_HELP)
    for _name in _names:
        _module = import_module(f"mpq.cli.{_group}_{_name}")
        _made.command(_name, cls=MpqCommand)(guarded(_module.command))
    app.add_typer(_made)


def main() -> None:
    """Run the command line."""
    app()
