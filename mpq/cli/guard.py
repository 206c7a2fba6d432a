"""The one place that stops a command, before it starts, from overwriting its own inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from mpq.writing.outputs import refuse_inputs, refuse_special

_FILES = ("output", "junit")  # parameters that name what is written
_FOLDERS = ("shards", "keep", "offload")
_TEXTS = ("calib", "data", "baseline", "old", "cost")  # parameters that name what is read, as text


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, which first refuses to write to its own inputs or to anything but a plain file.

    The command itself checks inputs that it finds, such as the model of a plan: see `find_inputs.check_output`.
    """

    @wraps(command)
    def run(**values: Any) -> None:
        inputs = list(_inputs(values))
        for name in _FILES:
            place = values.get(name)
            if place is not None:
                if not (place.is_dir() and not place.is_symlink()):  # some exports write to a folder
                    refuse_special(place)
                refuse_inputs(place, inputs)
        command(**values)

    return run


def _inputs(values: Mapping[str, Any]) -> Iterator[Path]:
    for name, value in values.items():
        if name in (*_FILES, *_FOLDERS):
            continue
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, Path):
                yield each
            elif name in _TEXTS and isinstance(each, str):
                yield Path(each.partition("?")[0])
                yield Path(each.rpartition("=")[0] or each)
