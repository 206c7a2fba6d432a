"""The next step that a command prints, with the options needed for this model and its data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.files import exists

if TYPE_CHECKING:
    from mpq.models.sources.loaded import LoadedModel

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def code_options(model: Mapping[str, Any], data: Mapping[str, Any], *, trust: bool) -> str:
    """The options that the next command needs before it calls code that the files name, each after a space.

    Args:
        model: facts of the model.
        data: facts of the data; empty where the next command does not read it.
        trust: whether the user gave --trust.
    """
    builder, source = model.get("factory"), str(data.get("source", "")).partition("?")[0]
    called = _CALLABLE.fullmatch(source) is not None and not exists(Path(source))
    builder_option = "" if builder is None else f" --builder {shlex.quote(str(builder))}"
    return builder_option + (" --trust" if trust or called or model.get("kind") == "pickle" else "")


def python_load(artifact: Path, model: LoadedModel, *, trust: bool) -> str:
    """The Python line that loads an artifact, with the module to fill if the artifact cannot build it."""
    if model.program is not None or model.config is not None:
        return f"mpq.load({str(artifact)!r})"
    if model.factory is not None:
        name, _, called = model.factory.partition(":")
        return f"import {name}; mpq.load({str(artifact)!r}, {name}.{called}())"
    opened = f"{str(model.path)!r}, trust=True" if trust or model.kind == "pickle" else repr(str(model.path))
    return f"mpq.load({str(artifact)!r}, mpq.load_model({opened}).module)"
