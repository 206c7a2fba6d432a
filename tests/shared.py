"""Folders that one process of a run of the tests makes, and whose files the tests of every process read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mpq.writing.locks import exclusive


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of this name, made by `make` if it is not there; not to be changed."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / f"shared-{name}"
    with (base / f"shared-{name}.made").open("a") as made, exclusive(made.fileno()):
        if made.tell() == 0:
            folder.mkdir()
            make(folder)
            made.write("yes")
            made.flush()
    return folder
