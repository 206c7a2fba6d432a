"""State dicts: building the module for them, and loading them into it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mpq.errors import ModelError, UsageError
from mpq.models.sources.adopt_dtypes import adopt_dtypes, refuse_lost_scales
from mpq.models.sources.checkpoint_entries import Entry
from mpq.models.sources.choose_weights import choose_weights, notes_on
from mpq.models.sources.detect_kind import shard_remedy
from mpq.models.sources.fit_checkpoint import load_fit
from mpq.models.sources.inference_tensors import replace_inference_tensors

_BY_FILE: ContextVar[bool] = ContextVar("_BY_FILE", default=False)


@dataclass(frozen=True)
class Reading:
    """How a checkpoint is read.

    Args:
        factory: "package.module:callable", which builds the module.
        key: the entry with the weights, or a prefix of names in it; None uses the only one that matches.
        allow_unexpected: ignore names that the module does not have.
    """

    factory: str | None = None
    key: str | None = None
    allow_unexpected: bool = False


def build_module(entries: Sequence[Entry], reading: Reading, *, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The factory's module with the weights of a checkpoint in their dtypes, in eval mode, and notes on the choice.

    Raises:
        UsageError: if the factory cannot be imported or called, or the key does not exist.
        ModelError: if there is no factory, names or shapes do not match, or several sets of weights do.
    """
    if reading.factory is None:
        remedy = shard_remedy(path) or "add --builder package.module:callable, which builds the module"
        raise ModelError(f"{path} holds weights without a module: {remedy}")
    module = make_module(reading.factory)
    replace_inference_tensors(module)
    fit = choose_weights(entries, module, what=str(path), maker=reading.factory, key=reading.key, allow_unexpected=reading.allow_unexpected)
    refuse_lost_scales(fit.state, module, fit.unexpected, what=str(path))
    converted = adopt_dtypes({name: value for name, value in fit.state.items() if name not in fit.unexpected}, module)
    load_fit(fit, module)
    return module.eval(), (*notes_on(fit, module, what=str(path), key=reading.key), *(f"{path}: {note}" for note in converted))


def make_module(factory: str) -> nn.Module:
    """The result of "package.module:callable"; modules in the current directory can be imported.

    Raises:
        UsageError: if it does not have that form, cannot be imported or called, or does not return a module.
    """
    try:
        with working_directory_importable():
            module = named(factory, option="--builder")()
    except UsageError:
        raise
    except Exception as error:  # the user's own code, which may fail in any way
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"--builder {factory} failed with {type(error).__name__}: {reason}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"--builder {factory} returned {type(module).__name__}: it must return a torch.nn.Module")
    return module


def named(text: str, *, option: str) -> Any:
    """The object that "package.module:name" names. The import may raise any error of that module.

    Raises:
        UsageError: if `text` does not have that form.
    """
    name, _, attribute = text.partition(":")
    if name.endswith(".py"):
        inside = name.removesuffix(".py").replace("/", ".")
        raise UsageError(
            f"'{text}' names a file: write its module, as Python imports it here, such as {option} {inside}:{attribute or 'build'}"
        )
    if not name or not attribute:
        raise UsageError(f"'{text}' does not name a callable: write {option} package.module:callable")
    target: Any = importlib.import_module(name)
    for part in attribute.split("."):
        target = getattr(target, part)
    return target


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Makes modules in the current directory importable: before all others, or after them if a file named the code."""
    here = str(Path.cwd())
    before = list(sys.path)
    sys.path.insert(len(before) if _BY_FILE.get() else 0, here)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def code_named_by_file() -> Iterator[None]:
    """Marks imports within the `with` as named by a file that the user trusts, not by the user."""
    token = _BY_FILE.set(True)
    try:
        yield
    finally:
        _BY_FILE.reset(token)
