"""What every test saves: bytecode is kept, and the command line is built once."""

import functools
import os
import sys

import typer.testing
from typer.main import get_command

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the tests start hundreds of processes, and each would compile mpq anew
sys.dont_write_bytecode = False
vars(typer.testing)["_get_command"] = functools.cache(get_command)  # nine tenths of the time of a small command
